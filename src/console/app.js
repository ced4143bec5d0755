// The console: who is there, and which page is shown. Each page is a module of its own, and gets the place to write to,
// the rest of the address, and a signal that ends what it has begun.

import { Refused, events, get, post, raw, useToken } from './api.js';
import { card, field, given, make, put, written } from './dom.js';
import './plot.js';
import * as overview from './overview.js';
import * as topics from './topics.js';
import * as topic from './topic.js';
import * as groups from './groups.js';
import * as work from './work.js';
import * as keys from './keys.js';
import * as locks from './locks.js';
import * as presence from './presence.js';
import * as sessions from './sessions.js';
import * as nodes from './nodes.js';
import * as slow from './slow.js';
import * as access from './access.js';

/**
 * The pages: the first part of the address, the name in the list, the module, and how many parts may follow. One without a
 * name is not in the list.
 */
const PAGES = [
  ['', 'Overview', overview, [0, 0]],
  ['topics', 'Topics', topics, [0, 0]],
  ['topic', null, topic, [1, 2]],
  ['group', null, groups, [2, 2]],
  ['groups', 'Groups', work, [0, 0]],
  ['keys', 'Keys', keys, [0, 2]],
  ['locks', 'Locks', locks, [0, 1]],
  ['presence', 'Presence', presence, [0, 1]],
  ['sessions', 'Sessions', sessions, [0, 0]],
  ['nodes', 'Nodes', nodes, [0, 0]],
  ['slow', 'Slow', slow, [0, 0]],
  ['access', 'Access', access, [0, 0]],
];
/** How long it waits before the relay is asked again that does not answer, in milliseconds: from so long to so long. */
const PAUSE = [500, 5_000];

const main = document.querySelector('main');
const nav = document.querySelector('nav');
const who = document.querySelector('.who');
const linkState = document.querySelector('.link-state');
let leaving = new AbortController();
/** Where each page stands, by the signal that ends it. */
const places = new WeakMap();

/** An address that leads nowhere. */
export class NoPage extends Error {}

/** Waits, each time longer, before the relay is asked again. */
export function pauses() {
  const [least, most] = PAUSE;
  let pause = least;
  return {
    wait: async () => {
      await new Promise(resolve => setTimeout(resolve, pause));
      pause = Math.min(pause * 2, most);
    },
    begin: () => { pause = least; },
  };
}

/** What went wrong, for people: the problem's code and sentence. */
export function told(error) {
  if (error instanceof NoPage) {
    return make('p', { class: 'error', role: 'alert' }, 'There is no such page. ', make('a', { href: '#/' }, 'To the overview'));
  }
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
  let note = null;
  // Where the relay refuses or is away, what was there stays, and it is asked again. A refusal that is not for now is told.
  const refused = error => {
    if (signal.aborted) return;
    if (!(error instanceof Refused)) return reportError(error);
    if (error.isForNow || error.status === 401 || error.status === 429) return;
    const now = make('div', {}, told(error), make('p', { class: 'quiet' }, 'What stands here may be old.'));
    if (note?.isConnected) note.replaceWith(now);
    else places.get(signal)?.prepend(now);
    note = now;
  };
  const well = () => { note?.remove(); };
  const turn = async () => {
    if (!document.hidden) await act().then(well, refused);
    if (!signal.aborted) timer = setTimeout(turn, milliseconds);
  };
  signal.addEventListener('abort', () => clearTimeout(timer));
  return turn();
}

/** Shows the page of the address once more. */
export function again() {
  show();
}

/** Goes to an address; to the one that is shown, it looks again. */
export function go(address) {
  if (new URL(address, location.href).hash === location.hash) again();
  else location.hash = address;
}

/** Reads an address: its page, the parts behind that, and its query. */
function read(address) {
  const [path, query = ''] = address.replace(/^#\/?/, '').split('?');
  let parts;
  try {
    parts = path.replace(/\/$/, '').split('/').map(decodeURIComponent);
  } catch {
    throw new NoPage();
  }
  const [first, ...rest] = parts;
  const found = PAGES.find(([part]) => part === first);
  const [least, most] = found?.[3] ?? [];
  if (!found || rest.length < least || rest.length > most || rest.includes('')) throw new NoPage();
  return { first, rest, name: found[1], page: found[2], query: new URLSearchParams(query) };
}

async function show(isMoved = false) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const { hash } = location;
  const pause = pauses();
  for (;;) {
    const place = make('div');
    places.set(signal, place);
    const wrong = await shown(place, hash, signal).catch(error => error);
    if (signal.aborted || wrong?.status === 401) return;
    const isForNow = wrong?.isForNow;
    // What is asked again by itself stays as it is meanwhile.
    if (!(isForNow && main.dataset.awaits === hash)) {
      if (wrong) put(place, told(wrong));
      if (isForNow) place.append(make('p', { class: 'quiet' }, 'It is asked again by itself.'));
      else if (wrong && !(wrong instanceof NoPage)) place.append(make('button', { onclick: again }, 'Try again'));
      main.replaceChildren(place);
      if (isMoved) main.focus({ preventScroll: true });
    }
    // Which page stands there, for who looks from outside.
    main.dataset.page = hash;
    if (!isForNow) {
      delete main.dataset.awaits;
      return;
    }
    main.dataset.awaits = hash;
    await pause.wait();
    if (signal.aborted) return;
  }
}

/** Shows the page of an address at a place. */
async function shown(place, hash, signal) {
  document.title = 'Tidemill';
  for (const link of nav.children) link.removeAttribute('aria-current');
  const { first, rest, name, page, query } = read(hash);
  const under = { topic: 'topics', group: 'groups' }[first] ?? first;
  for (const link of nav.children) {
    if (link.getAttribute('href') !== `#/${under}`) continue;
    link.setAttribute('aria-current', 'page');
    nav.scrollTo({ left: link.offsetLeft - (nav.clientWidth - link.offsetWidth) / 2 });
  }
  document.title = written(`${name ?? rest.join(' / ')} – Tidemill`);
  await page.show(place, rest, signal, query);
}

async function logInForm(reason) {
  leaving.abort();
  nav.replaceChildren();
  who.replaceChildren();
  delete main.dataset.awaits;
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
  const pause = pauses();
  let me = null;
  while (!me) {
    try {
      me = await whoIsThere();
    } catch (error) {
      if (error.status === 401) return logInForm(null);
      // While the storage is away nobody is told who they are. What the relay says of itself is seen all the same.
      if (error.status === 503) {
        me = { username: 'Storage away', isAnyone: false };
        knowLater();
      } else {
        const later = error.isForNow ? make('p', { class: 'quiet' }, 'It is asked again by itself.')
          : make('button', { onclick: enter }, 'Try again');
        main.replaceChildren(told(error), later);
        if (!error.isForNow) return;
        await pause.wait();
      }
    }
  }
  named(me);
  nav.replaceChildren(...PAGES.filter(([, name]) => name).map(([part, name]) => make('a', { href: `#/${part}` }, name)));
  await show();
}

/** Asks who is there: a name, and whether that is anyone, as nobody logs in at a relay that is open. */
async function whoIsThere() {
  const { user_id: id, username } = await get('auth/me');
  // Users and tokens of others can be called so, too.
  const isAnyone = id === 'anyone' && (await get('api/v1/me')).caller === 'anyone';
  return { username, isAnyone };
}

/** Says at the top who is there. Where everybody may do everything, there is nobody to log out. */
function named({ username, isAnyone }) {
  let wrong = null;
  const out = make('button', { onclick: async () => {
    wrong?.remove();
    try {
      await post('auth/logout');
    } catch (error) {
      // Whoever is not known any more is out. Else the log-in is as good as before.
      if (error.status !== 401) {
        wrong = told(error);
        main.prepend(wrong);
        return;
      }
    }
    useToken(null);
    await logInForm(null);
  } }, 'Log out');
  const name = isAnyone ? make('span', { class: 'warn' }, 'Open: everybody may do everything')
    : make('span', { class: 'name', title: username }, username);
  who.replaceChildren(...(isAnyone ? [name] : [name, out]));
}

/** Asks who is there until that can be told. */
async function knowLater() {
  const pause = pauses();
  for (;;) {
    await pause.wait();
    try {
      return named(await whoIsThere());
    } catch (error) {
      if (!error.isForNow) return;
    }
  }
}

// Once the relay does not answer it is asked whether it does, whatever is shown, until it does.
let isAsked = false;
events.addEventListener('link', async ({ detail: isThere }) => {
  linkState.hidden = isThere;
  if (isThere || isAsked) return;
  linkState.textContent = 'The relay does not answer. What is shown may be old; it is asked again.';
  isAsked = true;
  const pause = pauses();
  while (!linkState.hidden) {
    await pause.wait();
    if (!linkState.hidden) await raw('GET', 'health').catch(() => {});
  }
  isAsked = false;
});
events.addEventListener('unknown', () => {
  if (nav.children.length > 0) logInForm('The log-in is over.');
});
document.querySelector('.skip').addEventListener('click', event => {
  // Its address would be read as that of a page.
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', () => {
  if (nav.children.length > 0) show(true);
});
enter();
