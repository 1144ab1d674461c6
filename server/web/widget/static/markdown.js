// An answer's Markdown as it streams, appended as elements made here: nothing is ever parsed as HTML.
import * as smd from "./smd.min.js";
import { button, icon, make, texts } from "./dom.js";

const TAGS = {
  [smd.PARAGRAPH]: "p", [smd.BLOCKQUOTE]: "blockquote", [smd.CODE_BLOCK]: "code", [smd.CODE_FENCE]: "code",
  [smd.CODE_INLINE]: "code", [smd.ITALIC_AST]: "em", [smd.ITALIC_UND]: "em", [smd.STRONG_AST]: "strong",
  [smd.STRONG_UND]: "strong", [smd.STRIKE]: "s", [smd.LINK]: "a", [smd.RAW_URL]: "a", [smd.IMAGE]: "a",
  [smd.LINE_BREAK]: "br", [smd.RULE]: "hr", [smd.LIST_UNORDERED]: "ul", [smd.LIST_ORDERED]: "ol",
  [smd.LIST_ITEM]: "li", [smd.TABLE]: "table", [smd.TABLE_ROW]: "tr", [smd.TABLE_CELL]: "td",
};
const DEEPEST = 24; // deeper nesting than this is drawn on one level
const MOST = 4096; // tokens within tokens that the parser can follow; its own arrays hold 24

/** The address as a safe absolute URL, or nothing. */
function address(text) {
  try {
    const url = new URL(text.trim());
    return ["https:", "http:", "mailto:", "tel:"].includes(url.protocol) ? url.href : "";
  } catch {
    return "";
  }
}

const write = (node, text) => {
  if (node.lastChild?.nodeType === Node.TEXT_NODE) node.lastChild.appendData(text);
  else if (text) node.append(text);
};

/** A link becomes live here, when its address is complete; without one its source is shown again. */
function finish(node, outer, type, url, closed) {
  if (type === smd.RAW_URL) {
    const [end] = /[.,;:!?)\]}'"*_]*$/.exec(url ?? "");
    if (end) node.textContent = node.textContent.slice(0, -end.length);
    url = url?.slice(0, url.length - end.length);
    write(outer, end);
  } else if (url === undefined) {
    node.prepend(type === smd.IMAGE ? "![" : "[");
    if (closed) node.append("]");
    node.normalize();
  } else if (!node.textContent) node.append(url);
  const href = address(url ?? "");
  if (href && !outer.closest("a")) {
    Object.assign(node, { href, rel: "noopener nofollow ugc", target: "_blank" });
  }
}

function copyable(code) {
  const copy = button("copy", texts.copy_code, () => copyText(code.textContent, code, copy));
  code.parentNode.before(copy);
}

/** Put text on the clipboard, or select it where the browser refuses; the button says what happened. */
export async function copyText(text, element, pressed) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    getSelection().selectAllChildren(element);
    document.execCommand("copy");
  }
  pressed.replaceChildren(icon("tick"));
  pressed.ariaLabel = texts.copied;
}

/** Draws one answer into an element: write() as it comes, end() once. */
export class Markdown {
  constructor(root) {
    this.open = [{ node: root }];
    this.half = "";
    const renderer = {
      data: null,
      add_token: (_, type) => this.start(type),
      end_token: () => this.stop(),
      add_text: (_, text) => write(this.open.at(-1).node, text),
      set_attr: (_, name, value) => this.set(name, value),
    };
    this.parser = smd.parser(renderer);
    const tokens = new Uint32Array(MOST);
    tokens[0] = this.parser.token;
    Object.assign(this.parser, { tokens, spaces: new Uint32Array(MOST) });
  }

  start(type) {
    const { node: outer } = this.open.at(-1);
    const tag = TAGS[type];
    let node = outer;
    let mark = "";
    if (type === smd.EQUATION_INLINE || type === smd.EQUATION_BLOCK) {
      mark = this.parser.pending[0] === "\\" ? ["\\(", "\\)"] : ["$", "$"];
      if (type === smd.EQUATION_BLOCK) mark = mark[0] === "$" ? ["$$\n", "$$"] : ["\\[\n", "\\]"];
      write(outer, mark[0]);
    } else if (type >= smd.HEADING_1 && type <= smd.HEADING_6) {
      outer.append(make("p", {}, (node = make("strong"))));
    } else if (tag && (this.open.length < DEEPEST || tag === "br")) {
      node = make(type === smd.TABLE_CELL && !outer.previousSibling ? "th" : tag);
      if (type === smd.CODE_FENCE || type === smd.CODE_BLOCK) {
        outer.append(make("div", { class: "code", dir: "ltr" }, make("pre", {}, node)));
      } else if (type === smd.TABLE) outer.append(make("div", { class: "wide", tabindex: 0 }, node));
      else outer.append(node);
      if (type === smd.CODE_INLINE) node.dir = "ltr";
    }
    this.open.push({ node, outer, type, mark });
  }

  stop() {
    const { node, outer, type, mark, url, done } = this.open.pop();
    if (mark) write(node, mark[1]);
    if (type === smd.CHECKBOX) write(outer, done ? "\u2611 " : "\u2610 ");
    if (node === outer) return;
    if (type === smd.LINK || type === smd.RAW_URL || type === smd.IMAGE) {
      finish(node, outer, type, url, this.parser.pending[0] === "]");
    } else if (type === smd.CODE_FENCE || type === smd.CODE_BLOCK) copyable(node);
  }

  set(name, value) {
    const top = this.open.at(-1);
    if (name === smd.HREF || name === smd.SRC) top.url = value;
    if (name === smd.START && top.node.tagName === "OL") top.node.start = Number(value) || 1;
    if (name === smd.CHECKED) top.done = true;
  }

  write(text) {
    text = this.half + text;
    this.half = /[\ud800-\udbff]$/.test(text) ? text.slice(-1) : ""; // a character may come in halves
    smd.parser_write(this.parser, this.half ? text.slice(0, -1) : text);
  }

  end() {
    smd.parser_write(this.parser, this.half);
    smd.parser_end(this.parser);
    const { type, outer } = this.open.at(-1);
    const rest = this.parser.pending.trimEnd();
    while (this.open.length > 1) this.stop();
    if ((type === smd.LINK || type === smd.IMAGE) && rest.startsWith("](")) write(outer, rest.slice(1));
  }
}
