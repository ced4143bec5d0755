// Who is in a room.

import { call, get, url } from './api.js';
import { ACT, NAME, TEXT, card, confirmed, field, make, many, put, rewrite, table, when } from './dom.js';
import { button, every, form } from './app.js';
import { textOf } from './messages.js';

export async function show(place, [room], signal) {
  put(place, make('h1', {}, room ? `Room ${room}` : 'Presence'), form(({ name }) => { location.hash = `#/presence/${encodeURIComponent(name)}`; },
    make('div', { class: 'row' }, field('Room', 'name', { required: true, value: room ?? '', spellcheck: 'false' }), make('button', { class: 'main' }, 'Look'))));
  if (!room) return;
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
