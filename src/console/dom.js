// Elements, and how values are written. It must not know the relay.
//
// Invariant: what came from the relay becomes text or the value of an attribute that is none of a script's, never markup.

/** Makes an element: `make('p', { class: 'quiet' }, 'text', other)`; `on…` are listeners, and `null` is left out. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'value') element.value = value;
    else element.setAttribute(key, value === true ? '' : key === 'title' ? written(value) : value);
  }
  return put(element, ...children);
}

/** Adds to an element what is there: nothing of what is null, undefined or false. */
export function put(element, ...children) {
  const there = children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false);
  element.append(...there.flatMap(child => (child instanceof Node ? child : seen(String(child)))));
  return element;
}

/** Has an element show this, and nothing else. */
export const write = (element, ...children) => {
  element.replaceChildren();
  return put(element, ...children);
};

/** As `write`, of what is shown anew now and then: what was scrolled sideways stays so, and the focus where it was. */
export function rewrite(element, ...children) {
  const scrolled = [...element.querySelectorAll('.scroll')].map(({ scrollLeft, scrollTop }) => ({ scrollLeft, scrollTop }));
  const reached = () => [...element.querySelectorAll('a, button, input, [tabindex]')];
  const focused = reached().indexOf(document.activeElement);
  write(element, ...children);
  element.querySelectorAll('.scroll').forEach((each, at) => Object.assign(each, scrolled[at]));
  if (focused >= 0) reached()[focused]?.focus({ preventScroll: true });
}

/**
 * Characters that nobody sees, and that move others: controls but tabs and ends of lines, what turns the direction of a
 * text, and what has no width.
 */
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|\r(?!\n)/gu;
const codeOf = sign => `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;

/** A text with what nobody sees written out, as a title has it. */
export const written = text => text.replace(UNSEEN, sign => `[${codeOf(sign)}]`);

/** A text as it is, with a mark in place of each character that nobody sees. */
function seen(text) {
  const [found, parts] = [[...text.matchAll(UNSEEN)], []];
  if (found.length === 0) return [text];
  let from = 0;
  for (const { 0: sign, index } of found) {
    const mark = document.createElement('span');
    mark.className = 'unseen';
    mark.title = 'A character that is not seen';
    mark.textContent = codeOf(sign);
    parts.push(text.slice(from, index), mark);
    from = index + sign.length;
  }
  return [...parts, text.slice(from)];
}

/** Which characters a text has that nobody sees, or null. */
const unseenIn = text => {
  const found = new Set([...text.matchAll(UNSEEN)].map(([sign]) => codeOf(sign)));
  return found.size === 0 ? null : [...found].join(', ');
};

/** A field of a form with its label; `input` has its attributes. */
export function field(label, name, input = {}, element = 'input') {
  const { options, ...attributes } = input;
  const made = make(element, { name, ...attributes }, (options ?? []).map(option => make('option', {}, option)));
  if (attributes.type === 'checkbox') return make('label', { class: 'check' }, made, label);
  // What stands in a field is shown as it is, and cannot be marked there.
  const unseen = typeof made.value === 'string' ? unseenIn(made.value) : null;
  return make('label', {}, label, make('br'), made,
    unseen && make('span', { class: 'warn' }, make('br'), `It has characters that are not seen, or turn the text around: ${unseen}`));
}

/** What a column has, beside times, buttons and short words, which are written in one line: see `console.css`. */
export const [NUMBER, NAME, TEXT, ACT] = ['number', 'name', 'text', 'act'];

/** A cell: a name is cut after some lines, with all of it as its title. */
function cellOf(shown, kind) {
  if (kind !== NAME && kind !== TEXT) return make('td', { class: kind }, shown);
  const inside = make('div', {}, shown);
  if (kind === NAME) inside.title = written(inside.textContent);
  return make('td', { class: kind }, inside);
}

/** A table; a column is `[title, cell(row), kind?]`. It is scrolled sideways where it is wider than the screen. */
export function table(columns, rows, nothing) {
  if (rows.length === 0) return make('p', { class: 'quiet' }, nothing);
  const head = columns.map(([title, , kind]) => make('th', { scope: 'col', class: kind }, title));
  const body = rows.map(row => make('tr', {}, columns.map(([, cell, kind]) => cellOf(cell(row) ?? '–', kind))));
  return make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table' },
    make('table', {}, make('thead', {}, make('tr', {}, head)), make('tbody', {}, body)));
}

/** A link to the next page of a list, which begins behind `from`; nothing where there is none. */
export const nextPage = (from, hrefOf) => from && make('p', {}, make('a', { href: hrefOf(encodeURIComponent(from)) }, 'Next page'));

/** A list of names and values; those that are `null` are shown as a dash. */
export function facts(pairs) {
  return make('dl', {}, pairs.map(([name, value]) => [make('dt', {}, name), make('dd', {}, value ?? '–')]));
}

/** The heading of a page that is of one thing; a long name is written smaller. */
export const heading = name => make('h1', { class: name.length > 40 ? 'long' : null }, name);

export function card(title, ...children) {
  return make('section', { class: 'card' }, title && make('h2', {}, title), ...children);
}

/** What a form has, by name; empty fields are left out. */
export function given(form) {
  const all = [...new FormData(form)].filter(([, value]) => value !== '');
  return Object.fromEntries(all);
}

/** A number of things, as people say it. */
export const many = (count, thing) => `${number(count)} ${thing}${count === 1 ? '' : 's'}`;

export const number = value => (value === null || value === undefined ? null : value.toLocaleString('en'));

export function bytes(value) {
  if (value === null || value === undefined) return null;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) [value, at] = [value / 1024, at + 1];
  return `${at === 0 ? value : value.toFixed(1)} ${units[at]}`;
}

/** A time that has passed or is left, in seconds: about. */
export function seconds(value) {
  if (value === null || value === undefined) return null;
  for (const [size, unit] of [[86_400, 'd'], [3_600, 'h'], [60, 'min']]) {
    if (value >= 2 * size) return `${Math.round(value / size)} ${unit}`;
  }
  return value >= 10 ? `${Math.round(value)} s` : `${+value.toFixed(1)} s`;
}

/** A time that is set, in seconds: exactly, in the largest unit of which it is a whole number. */
export function span(value) {
  if (value === null || value === undefined) return null;
  const [size, unit] = [[86_400, 'd'], [3_600, 'h'], [60, 'min']].find(([size]) => value >= size && value % size === 0) ?? [1, 's'];
  return `${number(value / size)} ${unit}`;
}

/** A time as it is here, with the one of the relay as its title. */
export function when(value) {
  if (value === null || value === undefined) return null;
  return make('time', { datetime: value, title: value }, new Date(value).toLocaleString());
}

/** Asks in a dialog; with `typed`, the text has to be typed first. Resolves to whether it was said. */
export function confirmed(question, button, typed = null) {
  return new Promise(resolve => {
    const act = make('button', { class: 'danger', value: 'yes', disabled: typed !== null }, button);
    const input = typed && field(`Type ${typed} to go on`, 'typed', { autocomplete: 'off', spellcheck: 'false' });
    input?.addEventListener('input', event => { act.disabled = event.target.value !== typed; });
    const form = make('form', { method: 'dialog' }, make('p', {}, question), input,
      make('div', { class: 'row' }, act, make('button', { value: 'no', formnovalidate: true }, 'Leave it')));
    const dialog = make('dialog', { 'aria-label': button,
      onclose: () => { dialog.remove(); resolve(dialog.returnValue === 'yes'); } }, form);
    document.body.append(dialog);
    dialog.showModal();
    // Enter in the field is not to take the first button while it is off.
    form.addEventListener('submit', event => { if (act.disabled && event.submitter === act) event.preventDefault(); });
  });
}
