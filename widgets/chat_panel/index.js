/**
 * The chat panel in the browser.
 *
 * Owns the elements of one view. The conversation lives in the traits `transcript` and `status` of the kernel,
 * which sends what changed, numbered; a view that missed a change asks for all of it. Text becomes DOM as text,
 * or as the `html` that Python has rendered and sanitised. The messages are listed in protocol.json.
 */

const PATIENCE_MS = 8000;
const LATE_NOTICE =
  "The kernel has not answered yet. If a cell is running, it may answer after it; " +
  "if it was restarted, run this panel's cell again. Your text stays here.";
const BOTTOM_PX = 40;
const COPIED_MS = 1600;
const LOOK_MS = 3000;

const ICONS = {
  arrow: "M8 13V3M3.5 7.5 8 3l4.5 4.5",
  check: "m3 8.5 3.5 3.5L13 4.5",
  chevron: "m6 3.5 4.5 4.5L6 12.5",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  cross: "m4 4 8 8M12 4l-8 8",
  down: "M8 3v10M3.5 8.5 8 13l4.5-4.5",
  edit: "M3 13l.6-2.8L10.9 3l2.1 2.1-7.2 7.2zM9.5 4.4l2.1 2.1",
  export: "M8 2.5v7M5 6.7l3 3 3-3M2.5 10.5v3h11v-3",
  external: "M6.5 3.5h-4v10h10v-4M9.5 2.5h4v4M13.5 2.5 7 9",
  history: "M2.6 8a5.4 5.4 0 1 0 1.6-3.9M2.5 2.5v2.6h2.6M8 5v3.2l2.2 1.4",
  insert: "M2.5 3.5h11M2.5 6.5h11M8 9.5v5M5.5 12h5",
  plus: "M8 3v10M3 8h10",
  retry: "M13.4 8a5.4 5.4 0 1 1-1.6-3.9M13.5 2.5v2.6h-2.6",
  stop: "M4 4h8v8H4z",
  thumb: "M5 7.2v6H2.5v-6zM5 7.2l2.6-4.7c1 0 1.7.7 1.7 1.7L9 6.5h3.4c.8 0 1.3.7 1.1 1.4l-1 4.3c-.1.6-.6 1-1.2 1H5",
};

const STATE_LABELS = { queued: "Waiting", failed: "Failed", cancelled: "Stopped" };

const ENDS = { finished: "Answered", failed: "The answer failed", cancelled: "Stopped" };

const EXPORTS = { markdown: "Markdown", html: "Web page", jsonl: "JSON lines" };

// Pages of the embedded store, also behind jupyter-server-proxy. They open with a link for once, which the kernel
// makes at the click.
const STORE_ADDRESS =
  /^http:\/\/(127\.0\.0\.1|localhost|\[::1\]|rk-[0-9a-f]{16}\.localhost)[:/]|\/proxy\/\d+\/project\//;

// Pixels only, as Python has checked: nothing is loaded.
// Controls, and what turns the direction of text; in normal use no letter has more than 12 marks.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
const MARKS = /(\p{M}{12})\p{M}+/gu;
const PICTURE = /^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+$/;

// What may follow the fence of code for a cell; many models name no language.
const CELL_LANGUAGES = new Set(["", "ipython", "py", "python", "python3"]);

const BACKEND_TITLES = {
  disabled: "Tracing is off: nothing of this conversation is kept",
  local: "Traces go to the store on this computer",
  connected: "Traces go to the Langfuse server",
  buffering: "The Langfuse server is away: traces wait on disk",
  rejected: "The Langfuse server refuses the traces",
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

/** A button that says for a moment whether what it does has worked. */
function deedButton(className, iconName, { title, done, failed }, act) {
  const node = button(className, title, icon(iconName), icon("check"));
  const say = (text) => {
    node.title = text;
    node.setAttribute("aria-label", text);
  };
  node.addEventListener("click", async () => {
    try {
      await act();
      node.dataset.deed = "done";
    } catch {
      node.dataset.deed = "failed";
    }
    say(node.dataset.deed === "done" ? done : failed);
    setTimeout(() => {
      delete node.dataset.deed;
      say(title);
    }, COPIED_MS);
  });
  return node;
}

function copyButton(className, title, readText) {
  const words = { title, done: "Copied", failed: "The browser refused to copy" };
  return deedButton(className, "copy", words, () => copyText(readText()));
}

/** The notebook around a view, where the front end shows it to its widgets: JupyterLab and Notebook do. */
class Notebook {
  constructor(model, root) {
    this.root = root;
    this.context = model.widget_manager?.context;
  }

  get cells() {
    const { model, path } = this.context ?? {};
    // VS Code's widgets get a notebook that nobody sees; it is none of a path.
    const isShown = path && !model?.readOnly && typeof model?.sharedModel?.insertCell === "function";
    return isShown ? model.sharedModel : null;
  }

  /** Insert a code cell below the panel, or below the one inserted before. */
  insert(source) {
    const { cells } = this;
    const before = cells.cells.findIndex((cell) => cell.id === this.insertedId);
    const index = (before >= 0 ? before : this.panelIndex(cells.cells.length)) + 1;
    this.insertedId = cells.insertCell(index, { cell_type: "code", source, metadata: { trusted: true } }).id;
  }

  /** The place of the panel's cell; the last one for a panel that is shown outside the notebook. */
  panelIndex(count) {
    const cell = this.root.closest(".jp-Cell");
    const index = Number(cell?.dataset.windowedListIndex ?? NaN);
    return Number.isInteger(index) ? index : count - 1;
  }
}

/** What is shown of a text before Python has rendered it: no control characters, none that turn the others. */
function plainText(text) {
  const escaped = (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  // Browsers take seconds to draw thousands of marks on one letter.
  return text.replace(HIDDEN, escaped).replace(MARKS, "$1…");
}

/** The characters of `text` from `start` to `end`, counted as Python counts them. */
function sliceText(text, start, end) {
  if (!/[\ud800-\udfff]/.test(text)) return text.slice(start, end);
  return Array.from(text).slice(start, end).join("");
}

/** The HTML of `parts`: strings, and places in `text` of what is the same there. A text brings no markup in. */
function joinHtml(parts, text) {
  const characters = Array.from(text);
  const named = (begin, end) => characters.slice(begin, end).join("").replace(/[<>&"]/g, "");
  return parts.map((part) => (typeof part === "string" ? part : named(...part))).join("");
}

/** Count characters as Python does. */
function countCharacters(text) {
  if (!/[\ud800-\udfff]/.test(text)) return text.length;
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

function textButton(className, text) {
  const node = element("button", className, text);
  node.type = "button";
  return node;
}

/** A text area that grows with its text, and whose Enter sends. */
function writingBox(label, { onEnter, onEscape, onInput }) {
  const input = element("textarea", "rk-input");
  input.rows = 1;
  input.setAttribute("aria-label", label);
  const fit = () => {
    input.style.height = "auto";
    if (input.scrollHeight) input.style.height = `${input.scrollHeight}px`;
  };
  input.addEventListener("input", () => {
    fit();
    onInput?.();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") onEscape?.();
    // Enter that ends a word of an input method is not the end of the message.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    onEnter();
  });
  return { input, fit };
}

class ToolView {
  constructor(desk) {
    this.name = element("span", "rk-tool-name");
    this.latency = element("span", "rk-tool-latency");
    this.arguments = element("pre", "rk-tool-text");
    this.result = element("pre", "rk-tool-text");
    this.resultLabel = element("div", "rk-label");
    const mark = element("span", "rk-tool-mark", icon("check"), icon("cross"), element("span", "rk-spinner"));
    const decide = (text, decision, kind) => {
      const node = textButton(`rk-button ${kind}`, text);
      node.addEventListener("click", () => desk.post({ type: "decide", call_id: this.callId, decision }));
      return node;
    };
    this.asked = element("span", "");
    this.origin = element("span", "rk-origin");
    this.question = element(
      "div",
      "rk-approval",
      this.origin,
      this.asked,
      decide("Allow once", "once", "rk-primary"),
      decide("Allow for session", "session", ""),
      decide("Deny", "deny", ""),
    );
    this.question.setAttribute("role", "group");
    this.question.setAttribute("aria-label", "Approval");
    this.details = element(
      "details",
      "",
      element("summary", "", icon("chevron"), mark, this.name, this.latency),
      element("div", "rk-label", "Arguments"),
      this.arguments,
      this.resultLabel,
      this.result,
    );
    this.pictures = element("div", "rk-pictures");
    this.root = element("div", "rk-tool", this.details, this.pictures, this.question);
  }

  update(tool) {
    const state = tool.is_asking ? "asking" : tool.result === null ? "running" : tool.is_error ? "failed" : "finished";
    if (state === "asking" && this.root.dataset.state !== "asking") this.details.open = true;
    this.callId = tool.call_id;
    this.root.dataset.state = state;
    this.name.textContent = tool.name;
    this.latency.textContent =
      { running: tool.progress || "running…", asking: "waits for you" }[state] ?? tool.texts.latency;
    this.arguments.textContent = tool.arguments;
    this.resultLabel.textContent = tool.is_error ? "Error" : "Result";
    this.result.textContent = tool.result ?? "";
    this.resultLabel.hidden = this.result.hidden = tool.result === null;
    this.question.hidden = state !== "asking";
    this.asked.textContent = tool.is_changed
      ? "This tool has changed since you allowed it. Run it as it is now?"
      : "This tool may change something. Run it?";
    this.origin.textContent = tool.origin ?? "";
    this.origin.hidden = !tool.origin;
    this.showPictures(tool);
    for (const text of [this.arguments, this.result]) text.tabIndex = 0;
  }

  showPictures(tool) {
    const addresses = tool.images.filter((address) => PICTURE.test(address));
    this.pictures.hidden = addresses.length === 0;
    if (this.pictures.childElementCount === addresses.length) return;
    const pictures = addresses.map((address) => {
      const node = element("img", "rk-picture");
      node.alt = `Picture by ${tool.name}`;
      node.src = address;
      return node;
    });
    this.pictures.replaceChildren(...pictures);
  }
}

/** Thumbs and a comment; a second click on the same thumb takes the score back. */
class FeedbackView {
  constructor(desk, messageId) {
    Object.assign(this, { desk, messageId });
    this.up = this.thumb("Helpful", "rk-up", 1);
    this.down = this.thumb("Not helpful", "rk-down", 0);
    this.comment = element("input", "rk-comment");
    this.comment.placeholder = "Why? (optional, Enter saves)";
    this.comment.setAttribute("aria-label", "Comment on this answer");
    this.comment.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.give(this.value, this.comment.value);
    });
    this.saved = textButton("rk-saved", "");
    this.saved.title = "Change the comment";
    this.saved.addEventListener("click", () => this.edit());
    this.show(null);
  }

  thumb(title, className, value) {
    const node = button(`rk-icon-button ${className}`, title, icon("thumb"));
    node.addEventListener("click", () => this.give(this.value === value ? null : value, ""));
    return node;
  }

  give(value, comment) {
    this.desk.post({ type: "feedback", message_id: this.messageId, value, comment });
  }

  edit() {
    this.saved.hidden = true;
    this.comment.hidden = false;
    this.comment.focus();
  }

  show(feedback) {
    this.value = feedback?.value ?? null;
    this.up.setAttribute("aria-pressed", String(this.value === 1));
    this.down.setAttribute("aria-pressed", String(this.value === 0));
    this.comment.hidden = this.value === null || !!feedback.comment;
    this.saved.hidden = !feedback?.comment;
    this.saved.textContent = `“${feedback?.comment}”`;
    this.comment.value = feedback?.comment ?? "";
  }
}

class MessageView {
  constructor(message, desk) {
    this.desk = desk;
    this.id = message.message_id;
    this.tools = new Map();
    this.toolList = element("div", "rk-tools");
    this.done = element("div", "rk-done");
    this.tail = element("span", "rk-tail");
    this.body = element("div", "rk-body", this.done, this.tail);
    this.body.dir = "auto";
    this.error = element("div", "rk-error");
    this.notice = element("div", "rk-message-notice");
    this.facts = element("footer", "rk-facts");
    this.feedback = new FeedbackView(desk, this.id);
    this.root = element("article", `rk-message rk-${message.role}`, this.toolList, this.body, this.error, this.notice, this.facts);
    this.root.setAttribute("aria-label", message.role === "user" ? "You" : "Assistant");
    this.update(message);
  }

  get isOpen() {
    return this.message.state === "running" || this.message.state === "queued";
  }

  update(message) {
    this.message = message;
    this.text = message.text;
    this.length = countCharacters(message.text);
    this.htmlLength = message.html_length;
    this.root.dataset.state = message.state;
    this.root.setAttribute("aria-busy", String(this.isOpen));
    const ids = new Set(message.tools.map((tool) => tool.call_id));
    for (const [id, view] of this.tools) if (!ids.has(id)) view.root.remove();
    for (const tool of message.tools) this.updateTool(tool);
    if (message.role === "user") this.tail.textContent = plainText(message.text);
    else this.showAnswer(message.html);
    this.body.hidden = message.state !== "running" && !message.text;
    this.error.textContent = message.error ?? "";
    this.error.hidden = !message.error;
    this.notice.textContent = message.notice ?? "";
    this.notice.hidden = !message.notice;
    this.feedback.show(message.feedback);
    this.showFacts();
  }

  differsFrom(message) {
    return ["state", "text", "trace_url"].some((name) => message[name] !== this.message[name]);
  }

  /** Take the end of an answer of which `keepText` and `keepHtml` characters are here; false when they are not. */
  finish(message, keepText, keepHtml) {
    if (this.length < keepText || (keepHtml && this.htmlLength !== keepHtml)) return false;
    const text = sliceText(this.text, 0, keepText) + message.text;
    this.update({ ...message, text, html: (keepHtml ? this.html : "") + joinHtml(message.html, text) });
    return true;
  }

  updateTool(tool) {
    let view = this.tools.get(tool.call_id);
    if (!view) {
      view = new ToolView(this.desk);
      this.tools.set(tool.call_id, view);
      this.toolList.append(view.root);
    }
    view.update(tool);
  }

  showAnswer(html) {
    this.html = html;
    this.done.innerHTML = html;
    this.frameCode(this.done);
    this.showTail();
  }

  showTail() {
    const rest = this.isOpen ? sliceText(this.text, this.htmlLength) : "";
    this.tail.textContent = plainText(rest);
    if (this.isOpen) this.tail.append(element("span", "rk-caret"));
  }

  /** Give each code block its language, a button that copies it, and one that makes a cell of it. */
  frameCode(parent) {
    for (const pre of parent.querySelectorAll("pre")) {
      const language = pre.querySelector("code")?.className.replace("language-", "") ?? "";
      const tasks = element("div", "rk-code-tasks", element("span", "rk-language", language));
      if (this.desk.notebook.cells && CELL_LANGUAGES.has(language)) tasks.append(this.insertButton(pre));
      tasks.append(copyButton("rk-icon-button", "Copy the code", () => pre.textContent));
      const frame = element("div", "rk-code", tasks);
      pre.replaceWith(frame);
      pre.tabIndex = 0;
      frame.prepend(pre);
    }
  }

  insertButton(pre) {
    const words = {
      title: "Insert into a new cell",
      done: "Inserted below",
      failed: "The notebook refused the cell",
    };
    return deedButton("rk-icon-button", "insert", words, () =>
      this.desk.notebook.insert(pre.textContent.replace(/\n$/, "")),
    );
  }

  /** Show `text` from `offset` on, and the blocks that it made whole; false when something before is missing. */
  applyDelta({ offset, text, html_start, html_end, html }) {
    if (!this.isOpen) return true;
    if (offset > this.length) return false;
    if (offset < this.htmlLength) this.restart();
    if (html_start !== this.htmlLength) return false;
    this.text = sliceText(this.text, 0, offset) + text;
    this.length = offset + countCharacters(text);
    if (html_end > html_start) {
      const block = element("div", "rk-done");
      const added = joinHtml(html, this.text);
      block.innerHTML = added;
      this.frameCode(block);
      this.done.append(...block.childNodes);
      this.html += added;
      this.htmlLength = html_end;
    }
    this.showTail();
    return true;
  }

  restart() {
    this.htmlLength = 0;
    this.html = "";
    this.done.replaceChildren();
  }

  showFacts() {
    const { role, state, texts, trace_url, trace_id } = this.message;
    this.facts.hidden = state === "running";
    if (this.facts.hidden) return;
    const parts = [];
    if (role === "user") {
      const edit = button("rk-icon-button rk-edit", "Edit and send again", icon("edit"));
      edit.addEventListener("click", () => this.edit());
      parts.push(edit);
    } else {
      if (STATE_LABELS[state]) parts.push(element("span", "rk-state", STATE_LABELS[state]));
      if (state === "queued") {
        const remove = textButton("rk-button", "Remove");
        remove.addEventListener("click", () => this.desk.post({ type: "stop", message_id: this.id }));
        parts.push(remove);
      } else {
        const cost = element("span", "rk-fact", texts.cost === "–" ? "cost –" : texts.cost);
        cost.title = texts.cost_note;
        parts.push(element("span", "rk-fact", texts.tokens === "–" ? "tokens –" : texts.tokens), cost);
        parts.push(element("span", "rk-fact", texts.latency));
        const trace = link("rk-link rk-trace", "Trace");
        this.desk.leadTo(trace, trace_url, trace_id);
        if (!trace.hidden) parts.push(trace);
        parts.push(this.actions());
      }
    }
    this.facts.replaceChildren(...parts);
  }

  actions() {
    const parts = [];
    const { text, trace_id } = this.message;
    if (text) parts.push(copyButton("rk-icon-button rk-copy", "Copy the answer", () => this.text));
    const retry = button("rk-icon-button rk-retry", "Try again", icon("retry"));
    retry.addEventListener("click", () => this.desk.retry(this.id));
    parts.push(retry);
    if (trace_id) parts.push(this.feedback.up, this.feedback.down, this.feedback.comment, this.feedback.saved);
    return element("span", "rk-actions", ...parts);
  }

  edit() {
    const close = () => {
      editor.remove();
      this.body.hidden = this.facts.hidden = false;
    };
    const send = () => {
      if (box.input.value.trim()) this.desk.resend(this.id, box.input.value, close);
    };
    const box = writingBox("Edit the message", { onEnter: send, onEscape: close });
    const [again, cancel] = [textButton("rk-button rk-primary", "Send"), textButton("rk-button", "Cancel")];
    again.addEventListener("click", send);
    cancel.addEventListener("click", close);
    const editor = element("div", "rk-editor", box.input, element("div", "rk-editor-actions", cancel, again));
    box.input.value = this.text;
    this.body.hidden = this.facts.hidden = true;
    this.root.append(editor);
    box.fit();
    box.input.focus();
  }
}

/** What opens below the header: the sessions one can go on with, or the forms of an export. */
class DrawerView {
  constructor(desk) {
    this.desk = desk;
    this.root = element("div", "rk-drawer");
    this.root.hidden = true;
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  toggle(owner, title, fill) {
    const isSame = this.owner === owner;
    this.close();
    if (isSame) return;
    this.owner = owner;
    owner.setAttribute("aria-expanded", "true");
    this.list = element("div", "rk-drawer-list");
    this.root.replaceChildren(element("div", "rk-label", title), this.list);
    this.root.hidden = false;
    fill(this.list);
  }

  close() {
    this.owner?.setAttribute("aria-expanded", "false");
    if (this.root.contains(document.activeElement)) this.owner?.focus();
    this.owner = undefined;
    this.root.hidden = true;
  }

  showExports() {
    for (const [form, text] of Object.entries(EXPORTS)) {
      const node = textButton("rk-button", text);
      node.addEventListener("click", () => {
        this.desk.post({ type: "export", form });
        this.close();
      });
      this.list.append(node);
    }
  }

  showSessions(sessions, currentId) {
    if (!this.list || this.root.hidden) return;
    this.list.replaceChildren();
    if (!sessions.length) this.list.append(element("span", "", "No session of the last 30 days has messages."));
    for (const session of sessions) {
      const when = new Date(session.start_time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
      const count = session.message_count === 1 ? "1 message" : `${session.message_count} messages`;
      const node = textButton("rk-session-choice", "");
      node.append(
        element("span", "rk-choice-name", session.title || session.session_id),
        element("span", "rk-choice-facts", `${when} · ${count} · ${session.cost}`),
      );
      node.title = session.session_id;
      node.disabled = session.session_id === currentId;
      node.addEventListener("click", () => {
        this.desk.post({ type: "open_session", session_id: session.session_id });
        this.close();
      });
      this.list.append(node);
    }
  }
}

/** The question whether the tool servers that the folder's file names may be used. */
class TrustView {
  constructor(desk) {
    this.title = element("p", "rk-trust-title");
    this.servers = element("ul", "rk-trust-servers");
    this.servers.tabIndex = 0;
    this.servers.setAttribute("aria-label", "What it would start and contact");
    this.notes = element("div", "rk-trust-notes");
    const decide = (text, decision, kind) => {
      const node = textButton(`rk-button ${kind}`, text);
      node.addEventListener("click", () => desk.post({ type: "trust", question_id: this.questionId, decision }));
      return node;
    };
    this.trust = decide("Trust", "trust", "");
    const later = decide("Not now", "later", "");
    this.root = element(
      "div",
      "rk-trust",
      this.title,
      this.servers,
      this.notes,
      element("div", "rk-trust-buttons", this.trust, later),
    );
    this.root.setAttribute("role", "group");
    this.root.setAttribute("aria-label", "Trust these tool servers?");
  }

  update(question) {
    this.root.hidden = !question;
    // Only what is new is drawn, so that nothing moves under the pointer.
    if (!question || question.question_id === this.questionId) return;
    this.questionId = question.question_id;
    this.title.replaceChildren("Tool servers of ", element("code", "", question.path), " — nothing of it was started");
    this.servers.hidden = this.trust.hidden = !question.is_whole;
    const lines = question.servers.map(({ name, deed, details }) =>
      element("li", "", element("strong", "", name), " ", deed, ...details.map((text) => element("div", "", text))),
    );
    this.servers.replaceChildren(...lines);
    this.notes.replaceChildren(...question.notes.map((text) => element("p", "", text)));
  }
}

class HeaderView {
  constructor(desk, drawer) {
    this.desk = desk;
    this.lm = element("span", "rk-lm");
    this.badge = element("span", "rk-badge");
    this.link = link("rk-link rk-session-link", "Open session");
    this.session = element("code", "rk-session");
    this.copy = copyButton("rk-icon-button", "Copy the session id", () => this.session.textContent);
    this.user = element("span", "rk-person");
    this.backend = element("div", "rk-backend");
    this.backend.setAttribute("role", "status");
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
    this.fill = element("div", "rk-budget-fill");
    this.budgetText = element("span", "rk-budget-text");
    this.bar = element("div", "rk-budget-bar", this.fill);
    this.bar.setAttribute("role", "meter");
    this.bar.setAttribute("aria-label", "Budget used");
    this.bar.setAttribute("aria-valuemin", "0");
    this.bar.setAttribute("aria-valuemax", "100");
    this.budget = element("div", "rk-budget", this.bar, this.budgetText);
    const begin = button("rk-icon-button", "New session", icon("plus"));
    begin.addEventListener("click", () => desk.post({ type: "open_session", session_id: null }));
    const sessions = button("rk-icon-button", "Earlier sessions", icon("history"));
    sessions.addEventListener("click", () =>
      drawer.toggle(sessions, "Go on with an earlier session", (list) => {
        list.textContent = "Reading…";
        desk.post({ type: "list_sessions" });
      }),
    );
    const save = button("rk-icon-button", "Export", icon("export"));
    save.addEventListener("click", () => drawer.toggle(save, "Export the conversation as", () => drawer.showExports()));
    for (const node of [sessions, save]) node.setAttribute("aria-expanded", "false");
    this.root = element(
      "header",
      "rk-header",
      element("div", "rk-title", this.lm, this.badge, this.link, element("span", "rk-tasks", begin, sessions, save)),
      element("div", "rk-identity", this.session, this.copy, this.user),
      figures,
      this.backend,
      this.budget,
    );
  }

  update(status) {
    this.lm.textContent = status.lm_name ?? "Assistant";
    this.badge.textContent = status.backend_state;
    this.badge.dataset.state = status.backend_state;
    this.badge.title = BACKEND_TITLES[status.backend_state] ?? "";
    this.backend.hidden = !status.backend_reason;
    this.backend.textContent = `${this.badge.title}. Reason: ${status.backend_reason}`;
    this.desk.leadTo(this.link, status.session_url, null);
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
    this.showBudget(status.budget);
  }

  showBudget(budget) {
    this.budget.hidden = !budget;
    if (!budget) return;
    const percent = Math.round(budget.used_part * 100);
    this.budget.dataset.level = budget.level;
    this.fill.style.width = `${percent}%`;
    this.bar.setAttribute("aria-valuenow", String(percent));
    this.bar.setAttribute("aria-valuetext", budget.text);
    this.budgetText.textContent = `Budget: ${budget.text}`;
  }
}

class ComposerView {
  constructor({ send, stop }) {
    Object.assign(this, { send, stop });
    this.isBusy = false;
    this.isPending = false;
    this.isStopping = false;
    this.box = writingBox("Message", { onEnter: () => this.submit(), onInput: () => this.refresh() });
    this.input = this.box.input;
    this.input.placeholder = "Ask about this notebook…";
    this.sendButton = button("rk-send", "Send", icon("arrow"));
    this.stopButton = button("rk-stop", "Stop", icon("stop"));
    this.hint = element("div", "rk-hint");
    this.root = element(
      "div",
      "rk-composer",
      element("div", "rk-box", this.input, this.stopButton, this.sendButton),
      this.hint,
    );
    this.sendButton.addEventListener("click", () => this.submit());
    this.stopButton.addEventListener("click", () => this.onStop());
    this.refresh();
  }

  submit() {
    if (this.isPending || !this.input.value.trim()) return;
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
    const rename = (node, title) => {
      node.title = title;
      node.setAttribute("aria-label", title);
    };
    rename(this.sendButton, this.isPending ? "Sending…" : "Send");
    this.sendButton.disabled = this.isPending || !this.input.value.trim();
    rename(this.stopButton, this.isStopping ? "Stopping…" : "Stop");
    this.stopButton.hidden = !this.isBusy;
    this.stopButton.disabled = this.isStopping;
    this.hint.textContent = this.isBusy
      ? "Enter sends after the answer that is being written · Shift+Enter starts a new line"
      : "Enter sends · Shift+Enter starts a new line";
    this.input.readOnly = this.isPending;
    this.box.fit();
  }
}

/** The conversation in its frame; it stays at its end while the reader is there, and else where they are. */
class LogView {
  constructor() {
    this.isFollowing = true;
    this.place = 0;
    const empty = element(
      "div",
      "rk-empty",
      element("p", "rk-empty-title", "Ask about this notebook"),
      element("p", "", "The assistant can list and describe your variables and query your DataFrames."),
    );
    this.messages = element("div", "rk-log", empty);
    this.messages.setAttribute("role", "log");
    this.messages.setAttribute("aria-live", "polite");
    this.messages.setAttribute("aria-label", "Conversation");
    this.messages.tabIndex = 0;
    this.jump = button("rk-jump", "Go to the latest message", icon("down"));
    this.jump.addEventListener("click", () => this.scrollToEnd());
    this.messages.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.messages.addEventListener("load", () => this.settle(), { capture: true });
    this.messages.addEventListener("toggle", () => this.showJump(), { capture: true });
    this.root = element("div", "rk-middle", this.messages, this.jump);
    this.showJump();
    this.sizes = new ResizeObserver(([{ contentRect }]) => this.onResize(contentRect.width));
    this.sizes.observe(this.messages);
  }

  following(change) {
    this.onScroll();
    change();
    this.settle();
  }

  settle() {
    if (this.isFollowing) this.scrollToEnd();
    else if (this.messages.clientHeight && this.messages.scrollTop === 0) this.messages.scrollTop = this.place;
    this.showJump();
  }

  onScroll() {
    const { scrollTop, clientHeight } = this.messages;
    // A log that is not laid out has no place: the tab is hidden, or the page is not built yet.
    if (!clientHeight) return;
    // Only the reader scrolls up; that the end is further down also comes from what was added.
    if (this.isAtEnd) this.isFollowing = true;
    else if (scrollTop < this.place) this.isFollowing = false;
    this.place = scrollTop;
    this.showJump();
  }

  onResize(width) {
    if (width === this.width) return;
    this.width = width;
    this.settle();
  }

  get isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.messages;
    return scrollHeight - scrollTop - clientHeight < BOTTOM_PX;
  }

  scrollToEnd() {
    this.isFollowing = true;
    this.messages.scrollTop = this.messages.scrollHeight;
    this.place = this.messages.scrollTop;
  }

  showJump() {
    this.jump.hidden = this.isAtEnd;
  }

  destroy() {
    this.sizes.disconnect();
  }
}

class PanelView {
  constructor(model, el) {
    this.model = model;
    this.messages = new Map();
    this.requests = new Map();
    this.requestCount = 0;
    this.isResyncing = false;
    this.seenAt = Date.now();
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
    this.post({ type: "hello", revision: this.revision });
  }

  build() {
    this.root = element("section", "rk-chat");
    this.notebook = new Notebook(this.model, this.root);
    this.drawer = new DrawerView(this);
    this.header = new HeaderView(this, this.drawer);
    this.composer = new ComposerView({ send: (text) => this.send(text), stop: () => this.stop() });
    this.log = new LogView();
    this.trust = new TrustView(this);
    this.notice = element("div", "rk-notice");
    this.notice.setAttribute("role", "status");
    this.news = element("div", "rk-offscreen");
    this.news.setAttribute("aria-live", "polite");
    this.root.append(
      this.header.root,
      this.drawer.root,
      this.log.root,
      this.trust.root,
      this.notice,
      this.composer.root,
      this.news,
    );
    this.root.setAttribute("aria-label", "Chat");
    for (const look of ["pointerenter", "focusin"]) this.root.addEventListener(look, () => this.look());
    // Both guards are needed: Notebook 7 honours the attribute, JupyterLab only that the key never reaches it.
    this.root.dataset.lmSuppressShortcuts = "true";
    this.root.addEventListener("keydown", (event) => event.stopPropagation());
    this.notify("");
  }

  send(text) {
    this.request({ type: "send", text }, (isAccepted) => this.composer.settle({ isAccepted }));
  }

  resend(messageId, text, whenAccepted) {
    this.request({ type: "resend", message_id: messageId, text }, (isAccepted) => isAccepted && whenAccepted?.());
  }

  /** Ask the question of an answer again. */
  retry(answerId) {
    const views = [...this.messages.values()];
    const question = views[views.findIndex((view) => view.id === answerId) - 1];
    if (question) this.resend(answerId, question.text);
  }

  /** Ask, when somebody looks, what has become known since: nothing is polled. */
  look() {
    if (Date.now() - this.seenAt < LOOK_MS) return;
    this.seenAt = Date.now();
    this.post({ type: "refresh" });
  }

  stop() {
    const running = [...this.messages.values()].find((view) => view.message.state === "running");
    this.post({ type: "stop", message_id: running?.id ?? null });
  }

  request(message, settle) {
    this.notify("");
    this.requestCount += 1;
    const requestId = `${Date.now()}-${Math.random()}-${this.requestCount}`;
    const patience = setTimeout(() => this.notify(LATE_NOTICE), PATIENCE_MS);
    this.requests.set(requestId, { settle, patience });
    this.post({ ...message, request_id: requestId });
  }

  post(message) {
    try {
      this.model.send(message);
    } catch {
      for (const id of this.requests.keys()) this.settle(id, false);
      this.notify("The kernel of this panel is gone. Run its cell again; your text stays here.");
    }
  }

  /** Let `node` lead to a page whose address is `url`, or hide it when that is no web address. */
  leadTo(node, url, traceId) {
    pointTo(node, url);
    node.onclick = (event) => {
      if (!STORE_ADDRESS.test(url) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      // Opened within the click, because a window that opens later is blocked.
      const page = window.open("about:blank", "_blank");
      if (page) page.opener = null;
      this.request({ type: "open", trace_id: traceId }, (isAccepted, answer) => {
        if (isAccepted && answer.url && page) page.location.replace(answer.url);
        else page?.close();
        if (!answer?.url || !page) this.notify("Run research-kit store open in a terminal to open this page.");
      });
    };
  }

  onMessage(message) {
    const act = {
      accepted: () => this.settle(message.request_id, true, message) && this.log.scrollToEnd(),
      refused: () => this.settle(message.request_id, false, message) && this.notify(message.reason),
      link: () => this.settle(message.request_id, true, message),
      message: () => this.change(message, () => this.take(message)),
      cut: () => this.change(message, () => this.cut(message.message_count)),
      delta: () => this.onDelta(message),
      tool: () => this.onTool(message),
      feedback: () => this.messages.get(message.message_id)?.feedback.show(message.feedback),
      notice: () => this.notify(message.text),
      sessions: () => this.drawer.showSessions(message.sessions, this.model.get("status").session_id),
      file: () => this.download(message),
    };
    act[message.type]?.();
  }

  /** Every view hears the reply; it is for the one that asked. */
  settle(requestId, isAccepted, answer) {
    const request = this.requests.get(requestId);
    if (!request) return false;
    clearTimeout(request.patience);
    this.requests.delete(requestId);
    if (this.notice.textContent === LATE_NOTICE) this.notify("");
    request.settle(isAccepted, answer);
    return true;
  }

  download({ name, media_type, text }) {
    if (!this.root.contains(document.activeElement)) return;
    const node = element("a", "rk-offscreen");
    node.href = URL.createObjectURL(new Blob([text], { type: media_type }));
    node.download = name;
    document.body.append(node);
    node.click();
    node.remove();
    setTimeout(() => URL.revokeObjectURL(node.href), PATIENCE_MS);
  }

  /** Make a numbered change, or ask for everything when one before it was lost. */
  change({ revision }, act) {
    if (revision <= this.revision) return;
    if (revision > this.revision + 1) {
      this.resync();
      return;
    }
    this.revision = revision;
    this.log.following(act);
  }

  take({ message, keep_text, keep_html }) {
    const view = this.messages.get(message.message_id);
    if (!view) this.add({ ...message, html: joinHtml(message.html, message.text) });
    else if (!view.finish(message, keep_text, keep_html)) this.resync();
    else if (!view.isOpen) this.news.textContent = ENDS[message.state] ?? "";
  }

  cut(count) {
    for (const view of [...this.messages.values()].slice(count)) {
      view.root.remove();
      this.messages.delete(view.id);
    }
  }

  onDelta(message) {
    this.log.following(() => {
      if (!this.messages.get(message.message_id)?.applyDelta(message)) this.resync();
    });
  }

  onTool({ message_id, tool }) {
    this.log.following(() => {
      const view = this.messages.get(message_id);
      if (view) view.updateTool(tool);
      else this.resync();
      if (tool.is_asking) this.news.textContent = `The tool ${tool.name} waits for your permission`;
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
    const { revision, messages } = this.model.get("transcript");
    this.revision = revision;
    this.log.following(() => {
      const known = [...this.messages.keys()];
      // What is shown in the same places stays, with the reader's selection in it.
      const differing = known.findIndex((id, index) => id !== messages[index]?.message_id);
      if (differing >= 0) this.cut(differing);
      for (const message of messages) {
        const view = this.messages.get(message.message_id);
        if (!view) this.add(message);
        else if (view.isOpen || view.differsFrom(message)) view.update(message);
        else view.feedback.show(message.feedback);
      }
    });
  }

  add(message) {
    const view = new MessageView(message, this);
    this.messages.set(message.message_id, view);
    this.log.messages.append(view.root);
  }

  showStatus() {
    const status = this.model.get("status");
    this.header.update(status);
    this.trust.update(status.trust);
    this.composer.setBusy(status.is_busy);
  }

  notify(text) {
    this.notice.textContent = text;
    this.notice.hidden = !text;
    return true;
  }

  destroy() {
    this.log.destroy();
    for (const { patience } of this.requests.values()) clearTimeout(patience);
    for (const [name, listener] of this.listeners) this.model.off(name, listener);
    this.root.remove();
  }
}

function render({ model, el }) {
  const view = new PanelView(model, el);
  return () => view.destroy();
}

export default { render };
