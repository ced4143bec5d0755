// What is open on the node that answers: who, from where, since when, and how far behind; and ending it.

import { call, get, url } from './api.js';
import { ACT, NAME, NUMBER, card, confirmed, make, many, number, put, rewrite, seconds, table, when } from './dom.js';
import { button, every } from './app.js';

const PAGE = 200;

/** How far a node is with letting go of its clients. */
function drained({ node, stage, connections, ends_in_ms: left }) {
  const open = `${many(connections, 'other connection')} open`;
  if (stage === 'drained') return `Node ${node} has drained, and can be stopped: ${open}.`;
  const stages = { notice: 'it says that it is not ready, and serves still', leaving: 'what is open is told to go on elsewhere' };
  return `Node ${node} drains: ${stages[stage] ?? stage}. It ends in ${seconds((left ?? 0) / 1000)} at the latest; ${open}.`;
}

export async function show(place, _rest, signal) {
  put(place, make('h1', {}, 'Sessions'));
  const at = make('div');
  const look = async () => {
    const { node, count, sessions } = await get(`api/v1/admin/sessions?limit=${PAGE}`);
    const drain = await get('api/v1/admin/drain');
    const begin = button('Drain', async () => {
      if (!await confirmed(`Drain node ${drain.node}? All that is open on it is told to go on elsewhere, and it is not ready again before a restart.`, 'Drain it')) return;
      await call('POST', url`api/v1/admin/drain?node=${drain.node}`);
      await look();
    }, 'danger');
    const draining = make('div', { class: 'row' }, drain.stage === 'serving' ? begin
      : make('p', { class: 'warn' }, drained(drain)));
    const more = count > sessions.length ? `; the ${number(sessions.length)} that are open longest are shown` : '';
    rewrite(at, draining, make('p', { class: 'quiet' }, `${many(count, 'session')} on node ${node}, which has answered${more}.`), table([
      ['Session', row => make('code', {}, row.session)],
      ['Kind', row => row.kind],
      ['Who', row => row.caller, NAME],
      ['From', row => row.address],
      ['Since', row => when(row.since)],
      ['Topics', row => number(row.topics), NUMBER],
      ['Behind', row => (row.behind_seconds > 0 ? make('span', { class: 'warn' }, seconds(row.behind_seconds)) : 'no'), NUMBER],
      ['', row => button('End', async () => {
        if (!await confirmed(`End this ${row.kind} of ${row.caller}? It may come again.`, 'End it')) return;
        await call('DELETE', url`api/v1/admin/sessions/${row.session}`);
        await look();
      }, 'danger'), ACT],
    ], sessions, 'Nothing is open.'));
  };
  await look();
  put(place, card(null, at));
  setTimeout(() => signal.aborted || every(3_000, signal, look), 3_000);
}
