// JSON as the relay writes it: read with where each value stood in its text, and printed as it stood there. It must not
// know what is in it.
//
// Invariant: what is printed has every name and every number as it was typed, also a name that is there twice.

/** Of each object that was read, the text of each of its members. */
const SOURCES = new WeakMap();

/** Returns where a string ends that begins here. */
function endOfString(text, from) {
  for (let at = from; ;) {
    at = text.indexOf('"', at + 1);
    if (at < 0) return text.length;
    let slashes = 0;
    while (text[at - 1 - slashes] === '\\') slashes += 1;
    if (slashes % 2 === 0) return at + 1;
  }
}

const BETWEEN = /[\s,:]*/y;
const WORD = /[^\s,:[\]{}"]+/y;
const endOf = (pattern, text, from) => {
  pattern.lastIndex = from;
  pattern.test(text);
  return Math.max(pattern.lastIndex, from);
};

/** Returns where the token ends that begins here: a string, a bracket, a number or a word. */
function endOfToken(text, from) {
  if (text[from] === '"') return endOfString(text, from);
  return Math.max(endOf(WORD, text, from), from + 1);
}

/** Reads JSON, and keeps of each object how its members were written, for `sourceOf`. */
export function parse(text) {
  JSON.parse(text);
  let whole;
  const open = [];
  const keep = (value, from, to) => {
    const top = open.at(-1);
    if (!top) whole = value;
    else if (Array.isArray(top.value)) top.value.push(value);
    else {
      top.value[top.name] = value;
      top.sources.set(top.name, [from, to]);
      top.name = null;
    }
  };
  for (let from = endOf(BETWEEN, text, 0); from < text.length; from = endOf(BETWEEN, text, from)) {
    const to = endOfToken(text, from);
    const sign = text[from];
    const top = open.at(-1);
    if (sign === '[') open.push({ value: [], from });
    else if (sign === '{') {
      const begun = { value: Object.create(null), from, name: null, sources: new Map() };
      SOURCES.set(begun.value, { text, sources: begun.sources });
      open.push(begun);
    } else if (sign === ']' || sign === '}') {
      open.pop();
      keep(top.value, top.from, to);
    } else {
      const value = JSON.parse(text.slice(from, to));
      if (top && !Array.isArray(top.value) && top.name === null) top.name = value;
      else keep(value, from, to);
    }
    from = to;
  }
  return whole;
}

/** Returns how a member of an object that was read is written; undefined where it has none of this name. */
export function sourceOf(object, name) {
  const { text, sources } = SOURCES.get(object) ?? {};
  const place = sources?.get(name);
  return place && text.slice(...place);
}

/** How deep lines are moved in at most. */
const DEEP = 40;

/** Puts line breaks into JSON, and changes nothing else of it. */
export function printed(text) {
  let [out, depth] = ['', 0];
  const line = () => `\n${'  '.repeat(Math.min(depth, DEEP))}`;
  for (let from = 0; from < text.length;) {
    const sign = text[from];
    let to = from + 1;
    if (sign === ',') out += `,${line()}`;
    else if (sign === ':') out += ': ';
    else if (sign === '[' || sign === '{') {
      const next = from + 1 + /^\s*/.exec(text.slice(from + 1, from + 65))[0].length;
      const isEmpty = text[next] === ']' || text[next] === '}';
      depth += isEmpty ? 0 : 1;
      out += isEmpty ? sign + text[next] : sign + line();
      if (isEmpty) to = next + 1;
    } else if (sign === ']' || sign === '}') {
      depth -= 1;
      out += line() + sign;
    } else if (!' \t\r\n'.includes(sign)) {
      to = endOfToken(text, from);
      out += text.slice(from, to);
    }
    from = to;
  }
  return out;
}
