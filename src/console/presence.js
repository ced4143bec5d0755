// Rooms in which somebody is; and who is in one.

import { call, get, listed, url } from './api.js';
import { ACT, NAME, NUMBER, TEXT, card, confirmed, field, make, many, nextPage, number, put, rewrite, table, when } from './dom.js';
import { button, every, form, go } from './app.js';
import { textOf } from './messages.js';

const hrefOf = room => `#/presence/${encodeURIComponent(room)}`;

export async function show(place, [room], signal, query) {
  put(place, make('h1', {}, room ? `Room ${room}` : 'Presence'), form(({ name }) => go(hrefOf(name)),
    make('div', { class: 'row' }, field('Room', 'name', { required: true, value: room ?? '', spellcheck: 'false' }), make('button', { class: 'main' }, 'Look'))));
  await (room ? members(place, room, signal) : rooms(place, query));
}

async function rooms(place, query) {
  const from = query.get('from');
  const { rows, from: behind } = await listed(`api/v1/presence?limit=100${from ? `&after=${encodeURIComponent(from)}` : ''}`);
  put(place, card(null, table([
    ['Room', row => make('a', { href: hrefOf(row.room) }, row.room), NAME],
    ['Members', row => number(row.count), NUMBER],
  ], rows, behind ? 'Nobody is in the rooms of this page.' : 'There is nobody in any room that you may read.')),
  nextPage(behind, behind => `#/presence?from=${behind}`));
}

async function members(place, room, signal) {
  const at = make('div');
  const look = async () => {
    const about = await get(url`api/v1/presence/${room}` + '?limit=1000');
    rewrite(at, make('p', { class: 'quiet' }, many(about.count, 'member')), table([
      ['Member', row => row.member, NAME],
      ['Since', row => when(row.since)],
      ['Until', row => when(row.expires_at)],
      ['Node', row => row.node],
      ['Address', row => row.address],
      ['Data', row => (row.data === undefined ? null : make('pre', {}, textOf(row, 'data'))), TEXT],
      ['', row => button('Have it leave', async () => {
        if (!await confirmed(`Have ${row.member} leave ${room}?`, 'Have it leave')) return;
        await call('DELETE', url`api/v1/presence/${room}/${row.member}`);
        await look();
      }), ACT],
    ], about.members, 'Nobody is there.'));
  };
  await look();
  put(place, card(null, at));
  setTimeout(() => signal.aborted || every(3_000, signal, look), 3_000);
}
