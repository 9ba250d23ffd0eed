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

window.openPanel = async (source, traits, viewCount) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const { default: widget } = await import(url);
  window.model = new FakeModel(traits);
  window.closeViews = Array.from({ length: viewCount }, () => {
    const el = document.body.appendChild(document.createElement("div"));
    return widget.render({ model: window.model, el });
  });
};
