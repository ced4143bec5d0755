// Locks: those that are held; and one of them: who holds it, and who waits.

import { call, get, listed, url } from './api.js';
import { NAME, NUMBER, card, confirmed, field, make, many, number, put, seconds, table, when, write } from './dom.js';
import { again, attempt, button, form, go } from './app.js';

/** Pages that are asked for by themselves: each is a part of all that the storage keeps, in which few may be locks. */
const PAGES_AT_ONCE = 10;
/** Locks that are shown at once. */
const SHOWN = 100;

const hrefOf = (lock, guards = '') => `#/locks/${encodeURIComponent(lock)}${guards && `?guards=${encodeURIComponent(guards)}`}`;

/** What a lock guards, as text: `topic:orders`. */
const guardsOf = ({ guards }) => (guards ? Object.entries(guards)[0].join(':') : '');

/** Since when it is held: a fence begins with the time at which it was given. */
const since = ({ fence }) => when(new Date(Number(fence.split('-')[0])).toISOString());

export async function show(place, [lock], _signal, query) {
  const guards = query.get('guards') ?? '';
  put(place, make('h1', {}, lock ? `Lock ${lock}` : 'Locks'), form(({ name, guards: what = '' }) => {
    go(hrefOf(name, what));
  }, make('div', { class: 'row' },
    field('Name', 'name', { required: true, value: lock ?? '', spellcheck: 'false' }),
    field('It guards', 'guards', { value: guards, placeholder: 'topic:orders', spellcheck: 'false' }),
    make('button', { class: 'main' }, 'Look'))));
  await (lock ? one(place, lock, guards) : all(place));
}

async function one(place, lock, guards) {
  const path = url`api/v1/locks/${lock}` + (guards && `?guards=${encodeURIComponent(guards)}`);
  const about = await get(path);
  const more = about.waiting - about.queue.length;
  put(place, card(null,
    make('p', {}, about.holder ? `Held by ${about.holder}` : 'Nobody holds it.'),
    about.holder && table([
      ['Holder', row => row.holder, NAME],
      ['Fence', row => make('code', {}, row.fence)],
      ['Since', since],
      ['Until', row => when(row.expires_at)],
    ], [about], ''),
    make('h2', {}, 'Who waits'),
    table([['Holder', row => row.holder, NAME], ['Is to hold it for', row => seconds(row.ttl), NUMBER]], about.queue, 'Nobody.'),
    more > 0 && make('p', { class: 'quiet' }, `and ${number(more)} more`),
    make('div', { class: 'row' }, make('button', { onclick: again }, 'Look again'),
      about.holder && button('Take it away', async () => {
        if (!await confirmed(`Take the lock ${lock} away from ${about.holder}? What it does under the lock goes on, but its fence counts no more.`, 'Take it away')) return;
        await call('DELETE', path);
        again();
      }, 'danger'))));
}

async function all(place) {
  const found = new Map();
  let next = 'api/v1/locks';
  const at = make('div');
  const further = make('div');
  const look = async () => {
    const enough = found.size + SHOWN;
    for (let page = 0; next && page < PAGES_AT_ONCE && found.size < enough; page += 1) {
      const { rows, next: behind } = await listed(next);
      for (const row of rows) found.set(`${row.name} ${guardsOf(row)}`, row);
      next = behind;
    }
    const rows = [...found.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
    write(at, make('p', { class: 'quiet' }, `${many(rows.length, 'lock')} ${next ? 'found so far' : 'held'}`), table([
      ['Lock', row => make('a', { href: hrefOf(row.name, guardsOf(row)) }, row.name), NAME],
      ['Guards', row => guardsOf(row) || null, NAME],
      ['Holder', row => row.holder, NAME],
      ['Since', since],
      ['Until', row => when(row.expires_at)],
      ['Waiting', row => number(row.waiting), NUMBER],
    ], rows, next ? 'None in what was looked through.' : 'No lock that you may read is held.'));
    write(further, next && make('button', { onclick: () => attempt(further, look) }, 'Look further'));
  };
  await look();
  put(place, card(null, at, further), make('button', { onclick: again }, 'Look again'));
}
