/**
 * The kernel's side of a view without a kernel: keeps traits, records what the view sends, and delivers what
 * the test publishes. A message without a listener is an error, because a view that is shown must listen.
 */
class FakeModel {
  constructor(traits) {
    this.traits = structuredClone(traits);
    this.listeners = new Map();
    this.sent = [];
    this.isGone = false;
  }

  get(name) {
    if (!(name in this.traits)) throw new Error(`the panel has no trait ${name}`);
    return this.traits[name];
  }

  on(event, listener) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  off(event, listener) {
    this.listeners.set(
      event,
      (this.listeners.get(event) ?? []).filter((other) => other !== listener),
    );
  }

  send(message) {
    // What JupyterLab's model does after the kernel was restarted.
    if (this.isGone) throw new Error("Cannot send");
    this.sent.push(message);
  }

  deliver(event, ...values) {
    const listeners = this.listeners.get(event) ?? [];
    if (!listeners.length) throw new Error(`nobody listens to ${event}`);
    for (const listener of listeners) listener(...values);
  }

  publish(message) {
    this.deliver("msg:custom", message);
  }

  set(name, value) {
    this.traits[name] = structuredClone(value);
    this.deliver(`change:${name}`);
  }
}

/** The part of a notebook that JupyterLab shows to its widgets: a document whose cells can be added to. */
class FakeNotebook {
  constructor({ sources, readOnly, path = "a.ipynb" }) {
    this.cells = sources.map((source, index) => ({ source, id: `c${index}` }));
    this.context = { path, model: { readOnly, sharedModel: this } };
  }

  insertCell(index, { source }) {
    const cell = { source, id: `new${this.cells.length}` };
    this.cells.splice(index, 0, cell);
    return cell;
  }
}

window.openPanel = async (source, traits, viewCount, notebook) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  window.model = new FakeModel(traits);
  if (notebook) model.widget_manager = new FakeNotebook(notebook);
  window.closeViews = Array.from({ length: viewCount }, () => {
    const el = document.body.appendChild(document.createElement("div"));
    if (notebook) el.className = "jp-Cell";
    if (notebook) el.dataset.windowedListIndex = "0";
    return widget.render({ model: window.model, el });
  });
};
