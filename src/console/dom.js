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
    else element.setAttribute(key, value === true ? '' : value);
  }
  return put(element, ...children);
}

/** Adds to an element what is there: nothing of what is null, undefined or false. */
export function put(element, ...children) {
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/** A field of a form with its label; `input` has its attributes. */
export function field(label, name, input = {}, element = 'input') {
  const { options, ...attributes } = input;
  const made = make(element, { name, ...attributes }, (options ?? []).map(option => make('option', {}, option)));
  if (attributes.type === 'checkbox') return make('label', { class: 'check' }, made, label);
  return make('label', {}, label, make('br'), made);
}

/** A table; a column is `[title, cell(row), isNumber?]`. */
export function table(columns, rows, nothing) {
  if (rows.length === 0) return make('p', { class: 'quiet' }, nothing);
  const classes = isNumber => (isNumber ? { class: 'number' } : {});
  const head = columns.map(([title, , isNumber]) => make('th', { scope: 'col', ...classes(isNumber) }, title));
  const body = rows.map(row =>
    make('tr', {}, columns.map(([, cell, isNumber]) => make('td', classes(isNumber), cell(row) ?? '–'))));
  return make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Table' },
    make('table', {}, make('thead', {}, make('tr', {}, head)), make('tbody', {}, body)));
}

/** A list of names and values; those that are `null` are shown as a dash. */
export function facts(pairs) {
  return make('dl', {}, pairs.map(([name, value]) => [make('dt', {}, name), make('dd', {}, value ?? '–')]));
}

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

export function seconds(value) {
  if (value === null || value === undefined) return null;
  for (const [size, unit] of [[86_400, 'd'], [3_600, 'h'], [60, 'min']]) {
    if (value >= 2 * size) return `${Math.round(value / size)} ${unit}`;
  }
  return value >= 10 ? `${Math.round(value)} s` : `${+value.toFixed(1)} s`;
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
