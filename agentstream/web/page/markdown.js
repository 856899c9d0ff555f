  // --- markdown, its blocks -------------------------------------------------------------------

  // A line is read once, and what it makes is only ever appended to: headings, paragraphs, lists,
  // quotes, code, tables and rules, in each other as in CommonMark 0.31 and GFM (no raw HTML, no
  // references).  The line that is still being written is read too, and taken back before more of
  // it comes: what that does goes through Markdown.change.  A paragraph alone is drawn anew.
  const FENCE = /^( {0,3})(`{3,}|~{3,}) *(.*)$/, HEADING = /^ {0,3}(#{1,6})(?: +|$)/;
  const RULE = /^ {0,3}([-*_])(?: *\1){2,} *$/, QUOTE = /^ {0,3}> ?/, UNDERLINE = /^ {0,3}(={3,}|-{3,}) *$/;
  const ITEM = /^( {0,3})([-+*]|\d{1,9}[.)])( +|$)/, TASK = /^\[([ xX])\] /;
  const MOST_PARAGRAPH = 6000, MOST_PART = 6000, MOST_ITEMS = 50, MOST_COLUMNS = 64, MOST_DEPTH = 16;
  const IS_JSON = /^\s*(?:\{\s*(?:["}]|$)|\[\s*(?:[{["\]]|$))/;  // an answer of a type that was asked for
  const SLICE = 1024, MOST_REST = 4096, LANGUAGE = /^[^\s{`]{1,30}/;

  /** A markdown text that grows at its end. */
  class Markdown {
    constructor(node) {
      this.queue = '';     // text that has not been read
      this.rest = '';      // ... that has: the line that has no end yet
      this.isMore = false;  // its beginning is shown for good
      this.isTrial = false;
      this.done = [];      // what was done for that line, as functions that take it back
      this.grown = new Set();  // paragraphs
      this.isEmpty = true;
      this.root = new Blocks(this, node, 0);
    }
    add(text) { this.queue += text; }
    /** Show what was added, until it is so late (as performance.now() has it); returns whether it is all. */
    step(until) {
      if (!this.queue) return true;
      for (const undo of this.done.splice(0).reverse()) undo();
      do {
        const length = whole(this.queue, SLICE);
        this.read(this.queue.slice(0, length));
        this.queue = this.queue.slice(length);
      } while (this.queue && performance.now() < until);
      this.isTrial = true;
      if (this.rest) this.line(this.rest, this.isMore);
      this.isTrial = false;
      for (const paragraph of this.grown) paragraph.draw();
      this.grown.clear();
      return !this.queue;
    }
    read(text) {
      const lines = (this.rest + text).split(/\r\n|\n|\r(?=[^])/);
      this.rest = lines.pop();
      for (const line of lines) {
        this.line(line, this.isMore);
        this.isMore = false;
      }
      while (this.rest.length > MOST_REST) {
        const length = this.rest.lastIndexOf(' ', MOST_REST - 1) + 1 || whole(this.rest, MOST_REST);
        this.line(this.rest.slice(0, length), this.isMore);
        this.isMore = true;
        this.rest = this.rest.slice(length);
      }
    }
    line(text, isMore) {
      if (isMore) return this.root.more(text);
      this.root.line(text.replace(/^[ \t]*/, (space) => space.replace(/\t/g, '    ')));
    }

    /** Do it; what is done for an unfinished line can be taken back. */
    change(act, undo) {
      act();
      if (this.isTrial) this.done.push(undo);
    }
    set(object, key, value) {
      const before = object[key];
      if (this.isTrial) this.done.push(() => { object[key] = before; });
      object[key] = value;
    }
    append(parent, node) {
      this.change(() => parent.append(node), () => node.remove());
      return node;
    }
  }

  /** The blocks in the document, a quote or a list's item; at most the last one is open. */
  class Blocks {
    constructor(doc, node, depth) {
      Object.assign(this, { doc, node, depth, place: node, weight: 0, open: null });
    }
    line(text) {
      const { doc } = this;
      doc.set(this, 'weight', this.weight + text.length + 40);
      if (this.open?.takes(text)) return;
      doc.set(this, 'open', null);
      if (text.trim()) doc.set(this, 'open', this.begin(text));
    }
    /** The rest of a line that is too long to be kept. */
    more(text) {
      if (this.open instanceof Paragraph && this.open.isFull()) {
        this.doc.set(this, 'open', new Paragraph(this, text, 'on'));
      } else if (this.open?.more) this.open.more(text);
      else if (this.open?.inner) this.open.inner.more(text);
      else this.line(text);
      this.doc.set(this, 'weight', this.weight + text.length);
    }
    begin(text) {
      const { doc } = this, isFirst = doc.isEmpty;
      doc.set(doc, 'isEmpty', false);
      if (isFirst && IS_JSON.test(doc.isTrial ? `${text}.` : text)) return new Code(this, JSON_FENCE, text);
      const fence = fenceOf(text), item = ITEM.exec(text), heading = HEADING.exec(text);
      if (fence) return new Code(this, fence);
      if (heading) return this.heading(heading[1].length, text.slice(heading[0].length));
      if (RULE.test(text)) return this.add(make('hr')) && null;
      if (this.depth < MOST_DEPTH && QUOTE.test(text)) return new Quote(this, text);
      if (this.depth < MOST_DEPTH && item) return new List(this, item, text);
      if (text.startsWith('    ')) return new Code(this, null, text);
      return new Paragraph(this, text);
    }
    heading(level, text) {
      this.add(make(`h${Math.min(level + 3, 6)}`, { className: `level-${level}` },
        ...inline(text.trim().replace(/(^|\s)#+$/, ''))));
      return null;
    }
    /** Append a block; after many of them within a new part, which is not laid out while out of sight. */
    add(node) {
      const { doc } = this;
      if (this.weight > MOST_PART) {
        doc.set(this, 'weight', 0);
        doc.set(this, 'place', doc.append(this.node, make('div', { className: 'part' })));
      }
      return doc.append(this.place, node);
    }
    /** Whether a line that begins nothing belongs to the last paragraph, however deep. */
    isLazy(text) {
      const { open } = this;
      return open instanceof Paragraph ? !begins(text) : Boolean(open?.inner?.isLazy(text));
    }
  }
  function fenceOf(text) {
    const found = FENCE.exec(text);
    return found && !(found[2][0] === '`' && found[3].includes('`')) ? found : null;
  }
  /** Whether a line ends the paragraph before it. */
  function begins(text) {
    const item = ITEM.exec(text);
    return Boolean(fenceOf(text)) || HEADING.test(text) || RULE.test(text) || QUOTE.test(text)
      || Boolean(item && item[3] && text.length > item[0].length && !/^(?!1[.)])\d/.test(item[2]));
  }

  class Paragraph {
    constructor(blocks, text, className = '') {
      Object.assign(this, { blocks, text, node: blocks.add(make('p', { className })) });
      blocks.doc.grown.add(this);
    }
    takes(line) {
      const { blocks } = this;
      if (!line.trim()) return false;
      const rule = UNDERLINE.exec(line), columns = columnsOf(line);
      if (rule) {
        this.cut(0);
        blocks.doc.set(blocks, 'open', null);
        blocks.heading(rule[1][0] === '=' ? 1 : 2, this.text);
        return true;
      }
      const last = this.text.lastIndexOf('\n') + 1, head = cellsOf(this.text.slice(last));
      if (columns && head.length === columns.length) {
        this.cut(last);
        blocks.doc.set(blocks, 'open', new Table(blocks, head, columns));
        return true;
      }
      if (begins(line)) return false;
      if (this.isFull()) blocks.doc.set(blocks, 'open', new Paragraph(blocks, line, 'on'));
      else this.more(`\n${line}`);
      return true;
    }
    more(text) { this.become(this.text + text); }
    /** Keep the beginning; what comes after it is another block's. */
    cut(length) {
      const { doc } = this.blocks, place = this.node.parentNode;
      if (length) return this.become(this.text.slice(0, length - 1));
      doc.change(() => this.node.remove(), () => place.append(this.node));
    }
    become(text) {
      const { grown } = this.blocks.doc, before = this.text;
      this.blocks.doc.change(() => { this.text = text; }, () => { this.text = before; grown.add(this); });
      grown.add(this);
    }
    isFull() { return this.text.length > MOST_PARAGRAPH; }
    draw() { this.node.replaceChildren(...inline(this.text)); }
  }

  class Quote {
    constructor(blocks, line) {
      const node = blocks.add(make('blockquote'));
      this.inner = new Blocks(blocks.doc, node, blocks.depth + 1);
      this.takes(line);
    }
    takes(line) {
      const mark = QUOTE.exec(line);
      if (!mark && !(line.trim() && this.inner.isLazy(line))) return false;
      this.inner.line(mark ? line.slice(mark[0].length) : line);
      return true;
    }
  }

  class List {
    constructor(blocks, item, line) {
      Object.assign(this, { blocks, kind: item[2].at(-1), node: null, inner: null });
      Object.assign(this, { count: 0, edge: 0, width: 0, isApart: false });
      this.isNumbered = item[2].length > 1;
      this.number = this.isNumbered ? parseInt(item[2], 10) : 0;
      this.begin(item, line);
    }
    begin(item, line) {
      const { doc } = this.blocks;
      if (this.count % MOST_ITEMS === 0) {
        const properties = { className: this.count ? 'on' : '' };
        if (this.isNumbered) properties.start = this.number + this.count;
        doc.set(this, 'node', this.blocks.add(make(this.isNumbered ? 'ol' : 'ul', properties)));
      }
      const text = line.slice(item[0].length), task = TASK.exec(text);
      const node = doc.append(this.node, make('li', { className: task ? 'task' : '' }));
      doc.set(this, 'count', this.count + 1);
      doc.set(this, 'edge', item[1].length);
      doc.set(this, 'width', item[0].length - Math.max(item[3].length - 1, 0) + (item[3] ? 0 : 1));
      doc.set(this, 'inner', new Blocks(doc, node, this.blocks.depth + 1));
      this.inner.line(task ? `${task[1] === ' ' ? '☐' : '☑'} ${text.slice(4)}` : text);
    }
    takes(line) {
      const { doc } = this.blocks, isBlank = !line.trim();
      const item = ITEM.exec(line), indent = line.search(/\S|$/), wasApart = this.isApart;
      doc.set(this, 'isApart', isBlank);
      // Models indent what is within "1. " by two spaces as well.
      if (isBlank || indent >= this.width || (indent >= this.edge + 2 && begins(line))) {
        this.inner.line(line.slice(Math.min(indent, this.width)));
      } else if (item && item[2].at(-1) === this.kind && !RULE.test(line)) this.begin(item, line);
      else if (!wasApart && this.inner.isLazy(line)) this.inner.line(line);
      else return false;
      return true;
    }
  }

  const JSON_FENCE = ['', '', '', 'json'], NEVER = /(?!)/;  // nothing closes it

  /** Fenced code, or that of an indented line or of JSON, which begins with it. */
  class Code {
    constructor(blocks, fence, line) {
      Object.assign(this, { doc: blocks.doc, indent: fence ? fence[1].length : 4, end: null });
      Object.assign(this, { isBegun: false, isOver: false, blank: 0 });
      if (fence) this.end = fence[2] ? new RegExp(`^ {0,3}\\${fence[2][0]}{${fence[2].length},} *$`) : NEVER;
      this.code = make('code');
      const language = (fence && LANGUAGE.exec(fence[3])?.[0]) || 'code';
      const copying = copyButton('Copy this code', () => this.code.textContent);
      blocks.add(make('div', { className: 'code' },
        make('div', { className: 'title' }, make('bdi', {}, language), copying), make('pre', {}, this.code)));
      this.plain = new Plain(this.code);
      if (line !== undefined) this.put(line);
    }
    takes(line) {
      if (this.isOver) return false;
      if (this.end?.test(line)) { this.doc.set(this, 'isOver', true); return true; }
      if (this.end) {
        this.put(line);
        return true;
      }
      if (!line.trim()) { this.doc.set(this, 'blank', this.blank + 1); return true; }
      if (!line.startsWith('    ')) return false;
      for (; this.blank; this.doc.set(this, 'blank', this.blank - 1)) this.put('');
      this.put(line);
      return true;
    }
    put(line) {
      const text = escaped(line.slice(Math.min(line.search(/\S|$/), this.indent)));
      if (this.doc.isTrial) return this.trial(text);
      if (this.isBegun) this.plain.add('\n');
      this.plain.add(text);
      this.isBegun = true;
    }
    more(text) { if (this.doc.isTrial) this.trial(escaped(text)); else this.plain.add(escaped(text)); }
    trial(text) { this.doc.append(this.code, make('div', { className: 'chunk' }, text || '\n')); }
  }

  // --- tables ---------------------------------------------------------------------------------

  /** A row's cells, without the bars around it. */
  function cellsOf(line) {
    const cells = line.trim().replace(/^\|/, '').split(/(?<!\\)\|/);
    if (cells.length > 1 && !cells.at(-1).trim()) cells.pop();
    return cells.map((cell) => cell.trim().replace(/\\\|/g, '|'));
  }
  /** Its columns' places, if a line is the one below a table's head; else null. */
  function columnsOf(line) {
    if (!/^[\s|:-]*$/.test(line) || !line.includes('|')) return null;
    const cells = cellsOf(line);
    if (cells.length > MOST_COLUMNS || !cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
    return cells.map((cell) => (cell.at(-1) !== ':' ? '' : cell[0] === ':' ? 'middle' : 'right'));
  }
  class Table {
    constructor(blocks, head, columns) {
      Object.assign(this, { blocks, columns, count: 0, body: null });
      this.start('', make('thead', {}, this.row('th', head)));
    }
    start(className, ...head) {
      const { doc } = this.blocks, body = make('tbody');
      doc.set(this, 'body', body);
      this.blocks.add(make('div',
        { className: `table ${className}`, tabIndex: 0, role: 'group', 'aria-label': 'Table' },
        make('table', {}, ...head, body)));
    }
    row(tag, cells) {
      return make('tr', {}, ...this.columns.map((className, i) =>
        make(tag, { className }, ...inline(cells[i] || ''))));
    }
    takes(line) {
      if (!line.includes('|') || begins(line)) return false;
      if (this.count && this.count % MOST_ITEMS === 0) this.start('on');
      this.blocks.doc.append(this.body, this.row('td', cellsOf(line)));
      this.blocks.doc.set(this, 'count', this.count + 1);
      return true;
    }
  }

