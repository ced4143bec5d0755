// The nodes that share the storage, with their versions.

import { get } from './api.js';
import { NAME, NUMBER, card, make, many, number, put, rewrite, table, when } from './dom.js';
import { every } from './app.js';

export async function show(place, _rest, signal) {
  put(place, make('h1', {}, 'Nodes'));
  const at = make('div');
  const look = async () => {
    const { node, nodes } = await get('api/v1/admin/nodes');
    const versions = new Set(nodes.map(each => each.version)).size;
    const mixed = versions > 1 ? make('p', { class: 'warn' }, `They are of ${versions} versions: an upgrade is under way, or was left half done.`) : '';
    rewrite(at, make('p', { class: 'quiet' }, `${many(nodes.length, 'node')} on this storage; ${node} has answered. One that has ended without a word is listed for 30 seconds more.`), mixed, table([
      ['Node', row => make('code', {}, row.node)],
      ['Version', row => row.version],
      ['Host', row => row.host, NAME],
      ['Listening', row => row.listening.join(', '), NAME],
      ['Since', row => when(row.since)],
      ['Sessions', row => number(row.sessions), NUMBER],
      ['State', row => (row.stopping ? make('span', { class: 'warn' }, 'is stopping') : 'serves')],
    ], nodes, 'No node has said that it is there.'));
  };
  await look();
  put(place, card(null, at));
  setTimeout(() => signal.aborted || every(5_000, signal, look), 5_000);
}
