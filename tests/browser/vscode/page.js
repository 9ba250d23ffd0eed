// A web view with VS Code's own widget manager, as the Jupyter extension sets it up: widgets are loaded with
// RequireJS from the environment of the kernel, and comm messages go to its main shell.
import { activate } from "@vscode/jupyter-ipywidgets8";
import { CommsOverSubshells, KernelManager, ServerConnection } from "@jupyterlab/services";

const WIDGET = "application/vnd.jupyter.widget-view+json";

function connect({ token, kernelId }) {
  const baseUrl = `${location.origin}/`;
  const serverSettings = ServerConnection.makeSettings({ baseUrl, wsUrl: baseUrl.replace("http", "ws"), token });
  const kernel = new KernelManager({ serverSettings }).connectTo({ model: { id: kernelId, name: "python3" } });
  kernel.commsOverSubshells = CommsOverSubshells.Disabled;
  return kernel;
}

function createManager(kernel) {
  const scriptLoader = {
    widgetsRegisteredInRequireJs: new Set(),
    async loadWidgetScript(name) {
      requirejs.config({ paths: { [name]: `nbextensions/${name}/index` } });
    },
    successHandler() {},
    errorHandler(className, name, version, error) {
      console.error(className, name, version, error);
    },
  };
  return new vscIPyWidgets.WidgetManager(kernel, document.body, scriptLoader, () => {});
}

async function show(manager, data) {
  const output = document.createElement("div");
  output.className = "cell-output-ipywidget-background";
  document.body.append(output);
  const model = await manager.get_model(data[WIDGET].model_id);
  const view = await manager.create_view(model, { el: output });
  await manager.display_view(data, view, { node: output });
}

window.openNotebook = async (place) => {
  const kernel = connect(place);
  await kernel.info;
  const manager = createManager(kernel);
  window.runCell = async (code) => {
    const shown = [];
    const future = kernel.requestExecute({ code });
    future.onIOPub = ({ content }) => {
      if (content.data?.[WIDGET]) shown.push(show(manager, content.data));
    };
    const reply = await future.done;
    await Promise.all(shown);
    return reply.content.status;
  };
};

activate();
vscIPyWidgets8.load();
window.isLoaded = true;
