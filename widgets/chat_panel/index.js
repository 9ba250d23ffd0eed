/**
 * The chat panel in the browser.
 *
 * Owns the elements of one view. The conversation lives in the traits `transcript` and `status`; deltas only
 * show early what the trait will hold when the answer is whole. Text becomes DOM as text, or as the `html`
 * that Python has rendered and sanitised. The messages are listed in protocol.json.
 */

const PATIENCE_MS = 8000;
const BOTTOM_PX = 40;
const COPIED_MS = 1600;

const ICONS = {
  arrow: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  check: "m3 8.5 3.5 3.5L13 4.5",
  chevron: "m6 3.5 4.5 4.5L6 12.5",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  cross: "m4 4 8 8M12 4l-8 8",
  down: "M8 3v10M3.5 8.5 8 13l4.5-4.5",
  external: "M6.5 3.5h-4v10h10v-4M9.5 2.5h4v4M13.5 2.5 7 9",
  stop: "M4 4h8v8H4z",
};

const STATE_LABELS = { failed: "Failed", cancelled: "Stopped" };

const BACKEND_TITLES = {
  disabled: "Tracing is off: nothing of this conversation is kept",
  local: "Traces go to the store on this computer",
  connected: "Traces go to the Langfuse server",
  buffering: "The Langfuse server is away: traces wait on disk",
  rejected: "The Langfuse server refuses the traces: see rk.status()",
};

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function icon(name) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("rk-icon", `rk-icon-${name}`);
  const path = document.createElementNS(namespace, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(className, title, ...children) {
  const node = element("button", className, ...children);
  node.type = "button";
  node.title = title;
  node.setAttribute("aria-label", title);
  return node;
}

function link(className, text) {
  const node = element("a", className, element("span", "", text), icon("external"));
  node.target = "_blank";
  node.rel = "noopener noreferrer";
  return node;
}

/** Show `node` as a link to `url`, or not at all when there is no web address. */
function pointTo(node, url) {
  node.hidden = !/^https?:\/\//.test(url ?? "");
  if (!node.hidden) node.href = url;
}

async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Pages that are neither https nor localhost have no clipboard object.
  const area = element("textarea", "rk-offscreen");
  area.value = text;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (!isCopied) throw new Error("the browser refused to copy");
}

function copyButton(className, title, readText) {
  const node = button(className, title, icon("copy"), icon("check"));
  node.addEventListener("click", async () => {
    try {
      await copyText(readText());
      node.dataset.copied = "yes";
    } catch {
      node.dataset.copied = "no";
    }
    node.title = node.dataset.copied === "yes" ? "Copied" : "The browser refused to copy";
    setTimeout(() => {
      delete node.dataset.copied;
      node.title = title;
    }, COPIED_MS);
  });
  return node;
}

/** Count characters as Python does. */
function countCharacters(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

class ToolView {
  constructor() {
    this.name = element("span", "rk-tool-name");
    this.latency = element("span", "rk-tool-latency");
    this.arguments = element("pre", "rk-tool-text");
    this.result = element("pre", "rk-tool-text");
    this.resultLabel = element("div", "rk-label");
    const mark = element("span", "rk-tool-mark", icon("check"), icon("cross"), element("span", "rk-spinner"));
    this.root = element(
      "details",
      "rk-tool",
      element("summary", "", icon("chevron"), mark, this.name, this.latency),
      element("div", "rk-label", "Arguments"),
      this.arguments,
      this.resultLabel,
      this.result,
    );
  }

  update(tool) {
    const state = tool.result === null ? "running" : tool.is_error ? "failed" : "finished";
    this.root.dataset.state = state;
    this.name.textContent = tool.name;
    this.latency.textContent = state === "running" ? "running…" : tool.texts.latency;
    this.arguments.textContent = tool.arguments;
    this.resultLabel.textContent = tool.is_error ? "Error" : "Result";
    this.result.textContent = tool.result ?? "";
    this.resultLabel.hidden = this.result.hidden = state === "running";
  }
}

class MessageView {
  constructor(message) {
    this.message = message;
    this.tools = new Map();
    this.streamed = document.createTextNode("");
    this.length = 0;
    this.toolList = element("div", "rk-tools");
    this.body = element("div", "rk-body");
    this.body.dir = "auto";
    this.error = element("div", "rk-error");
    this.facts = element("footer", "rk-facts");
    this.root = element("article", `rk-message rk-${message.role}`, this.toolList, this.body, this.error, this.facts);
    this.root.setAttribute("aria-label", message.role === "user" ? "You" : "Assistant");
    this.update(message);
  }

  update(message) {
    const wasRunning = this.root.dataset.state === "running";
    // A message that is whole never changes again.
    if (this.root.dataset.state && !wasRunning) return;
    this.message = message;
    this.root.dataset.state = message.state;
    this.root.setAttribute("aria-busy", String(message.state === "running"));
    for (const tool of message.tools) this.updateTool(tool);
    this.showText();
    this.error.textContent = message.error ?? "";
    this.error.hidden = !message.error;
    this.showFacts();
  }

  updateTool(tool) {
    let view = this.tools.get(tool.call_id);
    if (!view) {
      view = new ToolView();
      this.tools.set(tool.call_id, view);
      this.toolList.append(view.root);
    }
    view.update(tool);
  }

  showText() {
    const { role, state, text, html } = this.message;
    if (role === "user") {
      this.body.textContent = text;
    } else if (state === "running") {
      this.streamed.data = text;
      this.length = countCharacters(text);
      this.body.replaceChildren(this.streamed, element("span", "rk-caret"));
    } else {
      this.body.innerHTML = html;
    }
    this.body.hidden = state !== "running" && !text;
  }

  /** Show `text` from `offset` on; false when text before it is missing. */
  applyDelta(offset, text) {
    if (this.message.state !== "running") return true;
    if (offset > this.length) return false;
    if (offset < this.length) {
      this.streamed.data = Array.from(this.streamed.data).slice(0, offset).join("");
    }
    this.streamed.appendData(text);
    this.length = offset + countCharacters(text);
    return true;
  }

  showFacts() {
    const { role, state, texts, trace_url, text } = this.message;
    this.facts.hidden = role === "user" || state === "running";
    if (this.facts.hidden) return;
    const parts = [];
    if (STATE_LABELS[state]) parts.push(element("span", "rk-state", STATE_LABELS[state]));
    const cost = element("span", "rk-fact", texts.cost === "–" ? "cost –" : texts.cost);
    cost.title = texts.cost_note;
    parts.push(element("span", "rk-fact", texts.tokens === "–" ? "tokens –" : texts.tokens), cost);
    parts.push(element("span", "rk-fact", texts.latency));
    const trace = link("rk-link rk-trace", "Trace");
    pointTo(trace, trace_url);
    if (!trace.hidden) parts.push(trace);
    if (text) parts.push(copyButton("rk-icon-button rk-copy", "Copy the answer", () => this.message.text));
    this.facts.replaceChildren(...parts);
  }
}

class HeaderView {
  constructor() {
    this.lm = element("span", "rk-lm");
    this.badge = element("span", "rk-badge");
    this.link = link("rk-link rk-session-link", "Open session");
    this.session = element("code", "rk-session");
    this.copy = copyButton("rk-icon-button", "Copy the session id", () => this.session.textContent);
    this.user = element("span", "rk-person");
    this.values = {};
    const figures = element("div", "rk-figures");
    for (const [name, label] of [
      ["messages", "Messages"],
      ["tokens", "Tokens"],
      ["cost", "Cost"],
      ["latency", "Median latency"],
    ]) {
      this.values[name] = element("span", `rk-value rk-value-${name}`);
      figures.append(element("span", "rk-figure", element("span", "rk-figure-label", label), this.values[name]));
    }
    this.sessionRow = element("div", "rk-identity", this.session, this.copy, this.user);
    this.root = element(
      "header",
      "rk-header",
      element("div", "rk-title", this.lm, this.badge, this.link),
      this.sessionRow,
      figures,
    );
  }

  update(status) {
    this.lm.textContent = status.lm_name ?? "Assistant";
    this.badge.textContent = status.backend_state;
    this.badge.dataset.state = status.backend_state;
    this.badge.title = BACKEND_TITLES[status.backend_state] ?? "";
    pointTo(this.link, status.session_url);
    this.session.textContent = status.session_id ?? "no session";
    this.session.title = status.session_id ?? "";
    this.copy.hidden = !status.session_id;
    this.user.textContent = status.user_id ?? "";
    this.user.hidden = !status.user_id;
    this.values.messages.textContent = String(status.message_count);
    this.values.tokens.textContent = status.texts.tokens;
    this.values.cost.textContent = status.texts.cost;
    this.values.cost.title = status.texts.cost_note;
    this.values.latency.textContent = status.texts.latency_p50;
  }
}

class ComposerView {
  constructor({ send, stop, notify }) {
    Object.assign(this, { send, stop, notify });
    this.isBusy = false;
    this.isPending = false;
    this.isStopping = false;
    this.input = element("textarea", "rk-input");
    this.input.rows = 1;
    this.input.placeholder = "Ask about this notebook…";
    this.input.setAttribute("aria-label", "Message");
    this.button = button("rk-send", "Send", icon("arrow"), icon("stop"));
    this.hint = element("div", "rk-hint", "Enter sends · Shift+Enter starts a new line");
    this.root = element("div", "rk-composer", element("div", "rk-box", this.input, this.button), this.hint);
    this.input.addEventListener("input", () => this.refresh());
    this.input.addEventListener("keydown", (event) => this.onKey(event));
    this.button.addEventListener("click", () => (this.isBusy ? this.onStop() : this.submit()));
    this.refresh();
  }

  onKey(event) {
    // Enter that ends a word of an input method is not the end of the message.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.submit();
  }

  submit() {
    if (this.isPending || !this.input.value.trim()) return;
    if (this.isBusy) {
      this.notify("An answer is still being written. Stop it, or wait for its end; your text stays here.");
      return;
    }
    this.isPending = true;
    this.refresh();
    this.send(this.input.value);
  }

  onStop() {
    this.isStopping = true;
    this.refresh();
    this.stop();
    this.input.focus();
  }

  /** The kernel took the text (then it leaves the box) or not (then it stays). */
  settle({ isAccepted }) {
    this.isPending = false;
    this.isStopping = false;
    if (isAccepted) this.input.value = "";
    this.refresh();
    if (isAccepted) this.input.focus({ preventScroll: true });
  }

  setBusy(isBusy) {
    this.isBusy = isBusy;
    this.isStopping = isBusy && this.isStopping;
    this.refresh();
  }

  refresh() {
    const title = this.isStopping ? "Stopping…" : this.isBusy ? "Stop" : this.isPending ? "Sending…" : "Send";
    this.button.title = title;
    this.button.setAttribute("aria-label", title);
    this.button.dataset.mode = this.isBusy ? "stop" : "send";
    this.button.disabled = this.isBusy ? this.isStopping : this.isPending || !this.input.value.trim();
    this.input.readOnly = this.isPending;
    this.input.style.height = "auto";
    if (this.input.scrollHeight) this.input.style.height = `${this.input.scrollHeight}px`;
  }
}

class PanelView {
  constructor(model, el) {
    this.model = model;
    this.messages = new Map();
    this.isResyncing = false;
    this.build();
    el.append(this.root);
    this.listeners = [
      ["change:transcript", () => this.showTranscript()],
      ["change:status", () => this.showStatus()],
      ["msg:custom", (message) => this.onMessage(message)],
    ];
    for (const [name, listener] of this.listeners) model.on(name, listener);
    this.showStatus();
    this.showTranscript();
    this.post({ type: "hello" });
  }

  build() {
    this.header = new HeaderView();
    this.composer = new ComposerView({
      send: (text) => this.send(text),
      stop: () => this.post({ type: "stop" }),
      notify: (text) => this.notify(text),
    });
    this.empty = element(
      "div",
      "rk-empty",
      element("p", "rk-empty-title", "Ask about this notebook"),
      element("p", "", "The assistant can list and describe your variables and query your DataFrames."),
    );
    this.log = element("div", "rk-log", this.empty);
    this.log.setAttribute("role", "log");
    this.log.setAttribute("aria-live", "polite");
    this.log.setAttribute("aria-label", "Conversation");
    this.log.tabIndex = 0;
    this.jump = button("rk-jump", "Go to the latest message", icon("down"));
    this.jump.addEventListener("click", () => this.scrollToEnd());
    this.log.addEventListener("scroll", () => this.refreshJump(), { passive: true });
    this.notice = element("div", "rk-notice");
    this.notice.setAttribute("role", "status");
    this.root = element(
      "section",
      "rk-chat",
      this.header.root,
      element("div", "rk-middle", this.log, this.jump),
      this.notice,
      this.composer.root,
    );
    this.root.setAttribute("aria-label", "Chat");
    // Both guards are needed: Notebook 7 honours the attribute, JupyterLab only that the key never reaches it.
    this.root.dataset.lmSuppressShortcuts = "true";
    this.root.addEventListener("keydown", (event) => event.stopPropagation());
    this.notify("");
    this.refreshJump();
  }

  send(text) {
    this.notify("");
    this.requestId = `${Date.now()}-${Math.random()}`;
    this.patience = setTimeout(() => {
      this.notify("The kernel has not answered yet. If it was restarted, run the cell again; your text stays here.");
    }, PATIENCE_MS);
    this.post({ type: "send", request_id: this.requestId, text });
  }

  post(message) {
    try {
      this.model.send(message);
    } catch {
      clearTimeout(this.patience);
      this.composer.settle({ isAccepted: false });
      this.notify("The kernel of this panel is gone. Run its cell again; your text stays here.");
    }
  }

  onMessage(message) {
    if (message.type === "accepted" || message.type === "refused") this.settle(message);
    else if (message.type === "delta") this.onDelta(message);
    else if (message.type === "tool") this.onTool(message);
  }

  settle(message) {
    // Every view hears the reply; it is for the one that asked.
    if (message.request_id !== this.requestId) return;
    clearTimeout(this.patience);
    this.composer.settle({ isAccepted: message.type === "accepted" });
    this.notify(message.reason ?? "");
    if (message.type === "accepted") this.scrollToEnd();
  }

  onDelta({ message_id, offset, text }) {
    this.following(() => {
      const isApplied = this.messages.get(message_id)?.applyDelta(offset, text);
      if (!isApplied) this.resync();
    });
  }

  onTool({ message_id, tool }) {
    this.following(() => {
      const view = this.messages.get(message_id);
      if (view) view.updateTool(tool);
      else this.resync();
    });
  }

  /** Ask for the whole transcript, once, after a message was lost on the way. */
  resync() {
    if (this.isResyncing) return;
    this.isResyncing = true;
    this.post({ type: "resync" });
  }

  showTranscript() {
    this.isResyncing = false;
    const transcript = this.model.get("transcript") ?? [];
    const ids = new Set(transcript.map((message) => message.message_id));
    this.following(() => {
      for (const [id, view] of this.messages) {
        if (ids.has(id)) continue;
        view.root.remove();
        this.messages.delete(id);
      }
      for (const message of transcript) this.showMessage(message);
      this.empty.hidden = transcript.length > 0;
    });
  }

  showMessage(message) {
    const view = this.messages.get(message.message_id);
    if (view) {
      view.update(message);
      return;
    }
    const created = new MessageView(message);
    this.messages.set(message.message_id, created);
    this.log.append(created.root);
  }

  showStatus() {
    const status = this.model.get("status");
    this.header.update(status);
    // The end of an answer settles the notice that asked to wait for it.
    if (this.composer.isBusy && !status.is_busy) this.notify("");
    this.composer.setBusy(status.is_busy);
  }

  notify(text) {
    this.notice.textContent = text;
    this.notice.hidden = !text;
  }

  /** Change the transcript; stay at its end only if the reader is there. */
  following(change) {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < BOTTOM_PX;
    change();
    if (isAtEnd) this.scrollToEnd();
    this.refreshJump();
  }

  scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  refreshJump() {
    const { scrollHeight, scrollTop, clientHeight } = this.log;
    this.jump.hidden = scrollHeight - scrollTop - clientHeight < BOTTOM_PX;
  }

  destroy() {
    clearTimeout(this.patience);
    for (const [name, listener] of this.listeners) this.model.off(name, listener);
    this.root.remove();
  }
}

function render({ model, el }) {
  const view = new PanelView(model, el);
  return () => view.destroy();
}

export default { render };
