// Markdown as it streams, appended as elements made here; nothing is parsed as HTML or drawn anew.
// A character at a time: how an answer was cut on its way makes no difference.
import { button, icon, make, texts } from "./dom.js";

const LONGEST = 600; // characters held back for what they may become
const DEEPEST = 8; // lists in lists
const SAFE = ["https:", "http:", "mailto:", "tel:"];

const CODE = /^(`+)([^`](?:.*?[^`])?)\1/;
const LINK = /^(!?)\[([^\]]*)\]\(\s*([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+"[^"]*")?\s*\)/;
const URL_TEXT = /^https?:\/\/[^\s<>"]+/;
const MARKS = [
  [/^(\*\*\*|___)(?=[^\s*_])(.*?\S)\1/, "strong", "em"],
  [/^(\*\*|__)(?=[^\s*_])(.*?\S)\1/, "strong"],
  [/^([*_])(?=[^\s*_])((?:(?!\1).|\1\1(?:(?!\1).)+\1\1)*?[^\s*_])\1/, "em"],
  [/^(~~)(?=\S)(.*?\S)~~/, "s"],
];
/** What may still become one of the above. */
const OPEN = /^(?:\\|`.*|[*_~]+(?:\S.*)?|!?(?:\[[^\]]*(?:\](?:\((?:[^()]|\([^()]*(?:\)|$))*)?)?)?|h(?:t(?:t(?:ps?(?::(?:\/(?:\/\S*)?)?)?)?)?)?)$/;

const FENCE = /^( *)(?:```+|~~~+)[^`\n]*\n$/;
const RULE = /^ *([-*_])(?: *\1){2,} *\n$/;
const ROW = /^ *\|(.*)\| *\n$/;
const HEADING = /^ *#{1,6} +(?=\S)/;
const ITEM = /^( *)(?:[-*+]|(\d{1,9})[.)]) +(?:\[([ xX])\] +)?(?=\S)/;
/** A line that may still begin one of these blocks. */
const BEGUN = /^ *(?:#{1,6} *|[-*+] *(?:\[[ xX]?\]? *)?|\d{1,9}(?:[.)] *(?:\[[ xX]?\]? *)?)?|[`~]{1,2}|(?:```+|~~~+)[^`]*|\|.*|([-*_])(?: *\1)* *)?$/;

function write(node, text) {
  if (node.lastChild?.nodeType === Node.TEXT_NODE) node.lastChild.appendData(text);
  else node.append(text);
}

/** A link to where it is safe to go, else its text alone. */
function linked(node, text, address) {
  try {
    const { protocol, href } = new URL(address);
    if (SAFE.includes(protocol)) {
      node.append((node = make("a", { href, rel: "noopener nofollow ugc", target: "_blank" })));
    }
  } catch {}
  inline(node, text || address, true, true);
}

/** Append what is complete at the start of a text; the rest, which may still become something, is returned. */
function inline(node, text, done, bare) {
  while (text) {
    let size = /^[^*_~`[!\\h]*/.exec(text)[0].length;
    if (size) write(node, text.slice(0, size));
    else {
      const inWord = /\w/.test(node.lastChild?.data?.at(-1) ?? "");
      const literal = inWord && (text[0] === "_" || text[0] === "h");
      size = literal ? 0 : complete(node, text, done, bare);
      if (!size && !literal && !done && text.length < LONGEST && OPEN.test(text)) return text;
      if (!size) write(node, text.slice(0, (size = 1)));
    }
    text = text.slice(size);
  }
  return "";
}

/** Append the piece at the start of a text if it is whole: how long it is, or 0. */
function complete(node, text, done, bare) {
  let match;
  if ((match = /^\\([!-/:-@[-`{-~])/.exec(text))) write(node, match[1]);
  else if ((match = CODE.exec(text))) node.append(make("code", { dir: "ltr" }, match[2]));
  else if (!bare && (match = LINK.exec(text))) linked(node, match[2], match[3]);
  else if (!bare && (match = URL_TEXT.exec(text)) && (done || match[0].length < text.length)) {
    match[0] = match[0].replace(/[.,;:!?)\]}'*_~]+$/, "");
    linked(node, match[0], match[0]);
  } else {
    const mark = MARKS.find(([pattern]) => (match = pattern.exec(text)));
    for (const tag of mark?.slice(1) ?? []) node.append((node = make(tag)));
    if (mark) inline(node, match[2], true, bare);
  }
  return match?.[0].length ?? 0;
}

/** The Clipboard API would need a permission of the page around us. */
export function copyFrom(element, pressed) {
  getSelection().selectAllChildren(element);
  document.execCommand("copy");
  getSelection().removeAllRanges();
  pressed.replaceChildren(icon("tick"));
  pressed.ariaLabel = texts.copied;
}

/** Draws one answer into an element: write() as it comes, end() once. */
export class Markdown {
  constructor(root) {
    this.root = this.at = root; // where blocks go: the answer, or a quote in it
    this.lists = []; // open ones, the innermost last: {list, item, indent}
    this.line = ""; // what came of a line whose kind is not known yet
    this.rest = ""; // what came of a text that may still become something
  }

  write(text) {
    for (const each of text) this.step(each);
  }

  end() {
    if (this.line || this.text) this.step("\n");
  }

  step(each) {
    if (this.code) this.inCode(each);
    else if (!this.text) this.begin(each);
    else if (each === "\n") {
      inline(this.text, this.rest, true);
      this.rest = "";
      this.block = this.text.localName === "strong" ? null : this.text; // a heading has one line
      this.text = null;
      this.quoted = false;
    } else this.rest = inline(this.text, this.rest + each, false);
  }

  inCode(each) {
    this.line += this.inLine ? "" : each;
    if (!this.inLine && /^ *(?:```+|~~~+) *\n$/.test(this.line)) this.code = null;
    else if (!this.inLine && /^ *[`~]* *$/.test(this.line)) return;
    else write(this.code, this.line.replace(this.margin, "") || each);
    this.line = "";
    this.inLine = this.code && each !== "\n";
  }

  begin(each) {
    const line = (this.line += each);
    let match;
    if (/^ *>$/.test(line)) {
      this.line = "";
      this.quoted = true;
      if (this.at === this.root) this.put((this.at = make("blockquote")), this.root);
      return;
    }
    if (each !== "\n" && BEGUN.test(line)) return;
    this.line = "";
    if (!this.quoted && this.at !== this.root) {
      this.at = this.root;
      this.block = null;
      this.lists = [];
    }
    this.quoted = each !== "\n" && this.quoted;
    if (!line.trim()) this.block = this.table = null;
    else if ((match = FENCE.exec(line))) {
      this.code = make("code");
      this.margin = new RegExp(`^ {0,${match[1].length}}`);
      const pre = make("div", { class: "code", dir: "ltr" }, make("pre", {}, this.code));
      const copy = button("copy", texts.copy_code, () => copyFrom(pre.querySelector("code"), copy));
      pre.prepend(copy);
      this.put(pre, this.inside(line));
    } else if (RULE.test(line)) this.put(make("hr"), this.at);
    else if ((match = ROW.exec(line))) this.row(match[1].split("|"));
    else if ((match = HEADING.exec(line))) {
      this.put(make("p", {}, (this.text = make("strong"))), this.at);
      this.write(line.slice(match[0].length));
    } else if ((match = ITEM.exec(line))) {
      this.item(match);
      this.write(line.slice(match[0].length));
    } else {
      this.text = this.block ?? make("p");
      if (this.block) this.text.append(make("br"));
      else this.put(this.text, this.inside(line));
      this.write(line.trimStart());
    }
  }

  /** A block of its own ends the paragraph before it, and the lists that it is not in. */
  put(block, where) {
    if (where === this.at || where === this.root) this.lists = [];
    this.block = this.table = null;
    where.append(block);
    if (this.root.childElementCount > 1) this.root.classList.add("full"); // laid out in half the time
  }

  /** Where an indented block goes: into the item before it. */
  inside(line) {
    return line.startsWith("  ") && this.lists.length ? this.lists.at(-1).item : this.at;
  }

  item([, { length: indent }, number, ticked]) {
    const tag = number ? "ol" : "ul";
    let { lists } = this;
    while (lists.length > 1 && indent < lists.at(-1).indent) lists.pop();
    let last = lists.at(-1);
    const nested = last && indent > last.indent + 1 && lists.length < DEEPEST;
    if (!last || nested || last.list.localName !== tag) {
      const outer = nested ? last.item : (lists.at(-2)?.item ?? this.at);
      if (last && !nested) lists.pop();
      last = { indent, list: make(tag, { start: number > 1 && number }) };
      lists = [...lists, last];
      this.put(last.list, outer);
      this.lists = lists;
    }
    last.list.append((last.item = this.text = make("li")));
    this.table = null;
    if (ticked) write(this.text, ticked === " " ? "\u2610 " : "\u2611 ");
  }

  row(cells) {
    if (this.table && cells.every((cell) => /^[\s:-]*$/.test(cell))) return;
    const tag = this.table ? "td" : "th";
    if (!this.table) {
      const table = make("table");
      this.put(make("div", { class: "wide", tabindex: 0 }, table), this.at);
      this.table = table;
    }
    const row = cells.map((cell) => {
      const element = make(tag);
      inline(element, cell.trim(), true);
      return element;
    });
    this.table.append(make("tr", {}, ...row));
  }
}
