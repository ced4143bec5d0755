// The console: who is there, and which page is shown. Each page is a module of its own, and gets the place to write to,
// the rest of the address, and a signal that ends what it has begun.

import { Refused, events, get, post, useToken } from './api.js';
import { card, field, given, make } from './dom.js';
import './plot.js';
import * as overview from './overview.js';
import * as topics from './topics.js';
import * as topic from './topic.js';
import * as groups from './groups.js';
import * as keys from './keys.js';
import * as locks from './locks.js';
import * as presence from './presence.js';
import * as sessions from './sessions.js';
import * as nodes from './nodes.js';
import * as slow from './slow.js';
import * as access from './access.js';

/** The pages: the first part of the address, the name in the list, and the module. One without a name is not in it. */
const PAGES = [
  ['', 'Overview', overview],
  ['topics', 'Topics', topics],
  ['topic', null, topic],
  ['group', null, groups],
  ['keys', 'Keys', keys],
  ['locks', 'Locks', locks],
  ['presence', 'Presence', presence],
  ['sessions', 'Sessions', sessions],
  ['nodes', 'Nodes', nodes],
  ['slow', 'Slow', slow],
  ['access', 'Access', access],
];

const main = document.querySelector('main');
const nav = document.querySelector('nav');
const who = document.querySelector('.who');
const linkState = document.querySelector('.link-state');
let leaving = new AbortController();

/** What went wrong, for people: the problem's code and sentence. */
export function told(error) {
  if (!(error instanceof Refused)) {
    reportError(error);
    return make('p', { class: 'error', role: 'alert' }, `The console itself has failed: ${error.message}`);
  }
  const { code, request_id: request } = error.problem;
  return make('p', { class: 'error', role: 'alert' }, code && make('code', {}, code), code && ' ', error.message,
    request && make('span', { class: 'quiet' }, ` (request ${request})`));
}

/** Does something that a person asked for, and shows beside it what went wrong. Resolves to whether it was done. */
export async function attempt(place, act) {
  place.querySelectorAll(':scope > .error, :scope > .done').forEach(old => old.remove());
  const buttons = [...place.querySelectorAll('button:not(:disabled)')];
  buttons.forEach(button => { button.disabled = true; });
  try {
    const said = await act();
    if (typeof said === 'string') place.append(make('p', { class: 'done', role: 'status' }, said));
    return true;
  } catch (error) {
    place.append(told(error));
    return false;
  } finally {
    buttons.forEach(button => { button.disabled = false; });
  }
}

/** A form that does something with what it was given, by name, when it is sent. */
export function form(act, ...children) {
  const element = make('form', { onsubmit: event => {
    event.preventDefault();
    attempt(element, () => act(given(element), element));
  } }, ...children);
  return element;
}

/** A button that does something, and shows beside itself what went wrong. */
export function button(text, act, kind = null) {
  const place = make('span', {}, make('button', { type: 'button', class: kind, onclick: () => attempt(place, act) }, text));
  return place;
}

/** Does something now and then, while the page is shown and somebody can see it. */
export function every(milliseconds, signal, act) {
  let timer;
  const turn = async () => {
    // Where the relay refuses or is away, what was there stays, and it is asked again.
    if (!document.hidden) await act().catch(error => { if (!(error instanceof Refused) && !signal.aborted) reportError(error); });
    if (!signal.aborted) timer = setTimeout(turn, milliseconds);
  };
  signal.addEventListener('abort', () => clearTimeout(timer));
  return turn();
}

/** Shows the page of the address once more. */
export function again() {
  show();
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [first, ...rest] = path.split('/').map(decodeURIComponent);
  const [, name, page] = PAGES.find(([part]) => part === first) ?? PAGES[0];
  const under = first === 'topic' || first === 'group' ? 'topics' : first;
  for (const link of nav.children) {
    if (link.getAttribute('href') === `#/${under}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  const place = make('div');
  document.title = `${name ?? rest.join(' / ')} – Tidemill`;
  try {
    await page.show(place, rest, signal, new URLSearchParams(query));
  } catch (error) {
    if (signal.aborted) return;
    if (error.status === 401) return;
    place.append(told(error), make('button', { onclick: again }, 'Try again'));
  }
  if (signal.aborted) return;
  main.replaceChildren(place);
  // Which page stands there, for who looks from outside.
  main.dataset.page = location.hash;
}

async function logInForm(reason) {
  leaving.abort();
  nav.replaceChildren();
  who.replaceChildren();
  const providers = await get('auth/oidc/providers').catch(() => []);
  const here = new URL('.', document.baseURI).pathname.replace(new URL('..', document.baseURI).pathname, '/');
  const links = providers.map(({ name, display_name: shown }) => make('p', {},
    make('a', { href: `../auth/oidc/${encodeURIComponent(name)}/login?cookie=true&next=${encodeURIComponent(here)}` },
      `Sign in with ${shown}`)));
  const byPassword = form(async ({ username, password }) => {
    useToken(null);
    await post('auth/cookie', { username, password });
    await enter();
  }, field('Name', 'username', { autocomplete: 'username', required: true, autofocus: true }),
  field('Password', 'password', { type: 'password', autocomplete: 'current-password', required: true }),
  make('button', { class: 'main' }, 'Log in'));
  const byToken = form(async ({ token }) => {
    useToken(token.trim());
    try {
      await get('auth/me');
    } catch (error) {
      useToken(null);
      throw error;
    }
    await enter();
  }, field('Token', 'token', { type: 'password', autocomplete: 'off', required: true }),
  make('p', { class: 'quiet' }, 'It is kept in this tab until it is closed.'),
  make('button', {}, 'Use the token'));
  document.title = 'Log in – Tidemill';
  main.replaceChildren(make('div', { class: 'log-in' }, make('h1', {}, 'Log in'),
    reason && make('p', { class: 'error', role: 'alert' }, reason),
    card(null, byPassword, ...links), card('Or with a token', byToken)));
}

async function enter() {
  let me;
  try {
    me = await get('auth/me');
  } catch (error) {
    if (error.status === 401) return logInForm(null);
    if (error.status !== 503) {
      main.replaceChildren(told(error), make('button', { onclick: enter }, 'Try again'));
      return;
    }
    // While the storage is away nobody is told who they are. What the relay says of itself is seen all the same.
    me = { user_id: null, username: 'Storage away', permissions: [] };
  }
  // Without a log-in, and where everybody may do everything, there is nobody to log out.
  const isAnyone = me.user_id === 'anyone' || me.user_id === 'anonymous';
  if (isAnyone && !me.permissions.includes('admin')) return logInForm(null);
  const out = make('button', { onclick: async () => {
    await post('auth/logout').catch(() => {});
    useToken(null);
    await logInForm(null);
  } }, 'Log out');
  const name = isAnyone ? make('span', { class: 'warn' }, 'Open: everybody may do everything') : make('span', {}, me.username);
  who.replaceChildren(...(isAnyone ? [name] : [name, out]));
  nav.replaceChildren(...PAGES.filter(([, name]) => name).map(([part, name]) => make('a', { href: `#/${part}` }, name)));
  await show();
}

events.addEventListener('link', ({ detail: isThere }) => {
  linkState.hidden = isThere;
  if (!isThere) linkState.textContent = 'The relay does not answer. What is shown may be old; it is asked again.';
});
events.addEventListener('unknown', () => {
  if (nav.children.length > 0) logInForm('The log-in is over.');
});
addEventListener('hashchange', () => {
  if (nav.children.length > 0) show().then(() => main.focus({ preventScroll: true }));
});
enter();
