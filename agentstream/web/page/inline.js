  // --- markdown, within a paragraph -----------------------------------------------------------

  // CommonMark 0.31's emphasis, code spans, links and escapes, and GFM's bare addresses and
  // ~~deletions~~.  Raw HTML and entities stay the text that they are, and nothing is loaded:
  // an image is a link to it.
  const SCHEMES = ['http:', 'https:', 'mailto:'], MOST_TARGET = 80, MOST_NESTED = 16;
  const SPAN = new RegExp([
    String.raw`\\([!-/:-@[-${'`'}{-~\n])`,                     // 1 an escaped character
    '(`+)',                                                    // 2 a code span's edge
    String.raw`(\*+|_+|~{2,})`,                                // 3 an emphasis's
    String.raw`(!?\[)`, String.raw`(\])`,                      // 4, 5 a link's text
    String.raw`<((?:https?:\/\/|mailto:)[^\s<>]*)>`,           // 6 an address
    String.raw`\b(https?:\/\/[^\s<>"${'`'}[\]\u2000-\u206f\u3000-\u303f\uff01-\uff20]+)`,  // 7 a bare one
  ].join('|'), 'gi');
  const TARGET = new RegExp(String.raw`\(\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\((?:[^\s()\\]|\\.)*\))*))`
    + String.raw`(?:\s+(?:"[^"]*"|'[^']*'|\([^()]*\)))?\s*\)`, 'y');
  const IS_SPACE = /\s/, IS_SIGN = /[\p{P}\p{S}]/u;

  /** Where a link leads, as the browser reads it: whole, in ASCII; null where nobody may go. */
  function targetOf(text) {
    let url;
    try { url = new URL(text); } catch { return null; }  // a relative one, too
    // A name before the host makes one host look like another.
    return SCHEMES.includes(url.protocol) && !url.username && !url.password ? url.href : null;
  }
  /** A link, and where it leads, unless its text says just that. */
  function webLink(children, href) {
    const text = make('bdi', {}, ...children);
    const a = make('a', { href, target: '_blank', rel: 'noopener noreferrer nofollow' }, text);
    const said = text.textContent;
    if (![href, href.replace(/\/$/, ''), href.replace(/^mailto:/, '')].includes(said)) {
      const most = Math.max(MOST_TARGET, new URL(href).origin.length + 1);
      const shown = href.length > most ? `${href.slice(0, most)}…` : href;
      a.append(said.trim() ? ' ' : '', make('bdi', { className: 'target', title: href }, `(${shown})`));
    }
    return a;
  }

  /** A paragraph's nodes. */
  const inline = (text) => new Spans(text).read();

  class Spans {
    constructor(text) {
      this.text = text;
      this.at = 0;
      this.items = [];     // {text}, {text, href}, {node} or the {mark, count, opens, closes} of an emphasis
      this.brackets = [];  // places in `items` where a link may begin
      this.unclosed = new Set();  // lengths of backtick runs that do not come again
    }
    read() {
      const { text } = this;
      const span = new RegExp(SPAN);
      for (let found; (found = span.exec(text)); span.lastIndex = this.at) {
        this.word(text.slice(this.at, found.index));
        this.at = span.lastIndex;
        const [all, escaped, ticks, marks, opener, closer, address, bare] = found;
        if (escaped) this.word(escaped);
        else if (ticks) this.code(ticks);
        else if (marks) this.mark(marks, found.index);
        else if (opener) { this.brackets.push(this.items.length); this.word(opener); }
        else if (closer) this.link();
        else if (address) this.address(address, all);
        else this.bare(bare);
      }
      this.word(text.slice(this.at));
      return nodesOf(this.items);
    }
    word(text) { if (text) this.items.push({ text }); }

    code(ticks) {
      const end = this.unclosed.has(ticks.length) ? -1 : this.closing(ticks.length);
      if (end < 0) { this.unclosed.add(ticks.length); return this.word(ticks); }
      let text = this.text.slice(this.at, end).replace(/\n/g, ' ');
      if (/^ .* $/.test(text) && text.trim()) text = text.slice(1, -1);
      this.items.push({ node: make('code', {}, text) });
      this.at = end + ticks.length;
    }
    closing(length) {
      const runs = /`+/g;
      runs.lastIndex = this.at;
      for (let run; (run = runs.exec(this.text)); ) if (run[0].length === length) return run.index;
      return -1;
    }

    mark(marks, start) {
      const before = this.text[start - 1] ?? ' ', after = this.text[this.at] ?? ' ';
      const leads = !IS_SPACE.test(after)
        && (!IS_SIGN.test(after) || IS_SPACE.test(before) || IS_SIGN.test(before));
      const trails = !IS_SPACE.test(before)
        && (!IS_SIGN.test(before) || IS_SPACE.test(after) || IS_SIGN.test(after));
      const isWordly = marks[0] === '_';  // not within a word
      this.items.push({
        mark: marks[0], count: marks.length, length: marks.length,
        opens: leads && (!isWordly || !trails || IS_SIGN.test(before)),
        closes: trails && (!isWordly || !leads || IS_SIGN.test(after)),
      });
    }

    link() {
      const open = this.brackets.pop();
      TARGET.lastIndex = this.at;
      const found = open === undefined ? null : TARGET.exec(this.text);
      const href = found && targetOf((found[1] ?? found[2]).replace(/\\([!-/:-@[-`{-~])/g, '$1'));
      if (!href) return this.word(']');  // its target, if it has one, is text as well
      const [opener, ...inner] = this.items.splice(open);
      const isImage = opener.text === '![';
      const children = nodesOf(inner, true);
      this.items.push({ node: webLink(isImage && !children.length ? ['image'] : children, href) });
      this.at = TARGET.lastIndex;
      if (!isImage) this.brackets.length = 0;  // no link holds another
    }
    address(text, all) {
      const href = targetOf(text);
      if (href) this.items.push({ text, href }); else this.word(all);
    }
    /** Without the signs that end the sentence, and the bracket that it stands in. */
    bare(text) {
      let end = text.length;
      const count = (sign) => text.slice(0, end).split(sign).length;
      for (; /[.,;:!?'*_~)]/.test(text[end - 1]); end--) {
        if (text[end - 1] === ')' && count('(') >= count(')')) break;
      }
      this.address(text.slice(0, end), text.slice(0, end));
      this.at -= text.length - end;
    }
  }

  function nodesOf(items, inLink = false) {
    pair(items, inLink);
    const nodes = [];
    for (const item of items) {
      const one = item.mark ? item.mark.repeat(item.count)
        : item.href && !inLink ? webLink([item.text], item.href) : item.node ?? item.text;
      if (typeof one === 'string' && typeof nodes.at(-1) === 'string') nodes.push(nodes.pop() + one);
      else if (one) nodes.push(one);
    }
    return nodes;
  }

  /** Put what stands between two marks of emphasis into an element, the innermost first. */
  function pair(items, inLink) {
    const floors = new Map();  // by the kind of mark: before this place nothing opens it
    for (let i = 0; i < items.length; i++) {
      const close = items[i];
      if (!close.closes || !close.count) continue;
      const kind = `${close.mark}${close.opens}${close.length % 3}`;
      const open = opening(items, i, floors.get(kind) ?? 0);
      if (open < 0) { floors.set(kind, i); continue; }
      const strong = items[open].count > 1 && close.count > 1;
      const depth = 1 + items.slice(open + 1, i).reduce((most, one) => Math.max(most, one.depth || 0), 0);
      if (depth > MOST_NESTED) { close.closes = false; continue; }
      const inner = items.splice(open + 1, i - open - 1);
      const taken = strong ? 2 : 1;
      items[open].count -= taken;
      close.count -= taken;
      const tag = close.mark === '~' ? 'del' : strong ? 'strong' : 'em';
      for (const one of inner) one.opens = one.closes = false;
      items.splice(open + 1, 0, { node: make(tag, {}, ...nodesOf(inner, inLink)), depth });
      i = open + 1;  // the same mark may close another
    }
  }
  function opening(items, i, floor) {
    const close = items[i];
    for (let j = i - 1; j >= floor; j--) {
      const open = items[j];
      if (open.mark !== close.mark || !open.opens || !open.count) continue;
      if (close.mark === '~') { if (open.count > 1 && close.count > 1) return j; continue; }
      // CommonMark's rule of three: "*a**b*" has one emphasis.
      const isOdd = (open.closes || close.opens) && (open.length + close.length) % 3 === 0
        && (open.length % 3 || close.length % 3);
      if (!isOdd) return j;
    }
    return -1;
  }

