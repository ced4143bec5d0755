// What took long: on the node that answers, with the parts of its time, and at its servers.

import { get } from './api.js';
import { NAME, NUMBER, TEXT, card, make, many, number, put, rewrite, table, when } from './dom.js';
import { every } from './app.js';

const ms = time => (time === undefined ? null : `${number(Math.round(time * 10) / 10)} ms`);

function server({ server: name, commands, refusal }) {
  const title = make('h2', {}, 'Server ', make('code', {}, name));
  if (refusal) return [title, make('p', { class: 'warn' }, `It does not tell what it has noted: ${refusal}`)];
  return [title, table([
    ['At', row => when(row.at)],
    ['Took', row => ms(row.took_ms), NUMBER],
    ['Command', row => make('code', {}, row.key ? `${row.command} ${row.key}` : row.command), TEXT],
    ['From', row => row.address],
    ['Client', row => row.client, NAME],
  ], commands, 'It has noted nothing.')];
}

export async function show(place, _rest, signal) {
  put(place, make('h1', {}, 'Slow'));
  const at = make('div');
  const servers = make('div');
  const look = async () => {
    const list = await get('api/v1/admin/slow');
    const noted = list.threshold_ms === 0
      ? `Node ${list.node}, which has answered, notes nothing: TIDEMILL_SLOW_MS is 0.`
      : `${many(list.count, 'operation')} past ${number(list.threshold_ms)} ms on node ${list.node}, which has answered, since it has started; the newest are shown.`;
    rewrite(at, make('p', { class: 'quiet' }, noted), table([
      ['At', row => when(row.at)],
      ['Total', row => ms(row.total_ms), NUMBER],
      ['Queue', row => ms(row.queue_ms), NUMBER],
      ['Server', row => ms(row.server_ms), NUMBER],
      ['Write', row => ms(row.write_ms), NUMBER],
      ['Kind', row => row.kind],
      ['Who', row => row.caller, NAME],
      ['Topic', row => row.topic, NAME],
      ['Operation', row => make('code', {}, row.operation), TEXT],
      ['Status', row => row.status, NUMBER],
      // The log has the same.
      ['Request', row => row.request_id && make('code', {}, row.request_id)],
    ], list.operations, 'Nothing took long.'));
    rewrite(servers, list.servers.flatMap(server));
  };
  await look();
  put(place, card(null, at), servers);
  setTimeout(() => signal.aborted || every(5_000, signal, look), 5_000);
}
