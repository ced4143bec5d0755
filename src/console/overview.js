// How the relay is: what goes in and out of the node that answers, and how its storage is.

import { get, metrics } from './api.js';
import { NAME, NUMBER, bytes, card, facts, make, many, number, put, rewrite, seconds, table } from './dom.js';
import { every } from './app.js';

/** How often it is asked, in milliseconds. */
const EVERY = 2_000;

/** The sum of all values of a metric with these labels. */
const sum = (all, name, labels = {}) =>
  (all.get(name) ?? []).filter(row => Object.entries(labels).every(([key, value]) => row.labels[key] === value))
    .reduce((total, row) => total + row.value, 0);

/** What is plotted: its title, its value out of two readings and the seconds between them, and how it is written. */
const rate = count => (now, before, time) => (count(now) - count(before)) / time;
const PLOTS = [
  ['Published, messages a second', rate(all => sum(all, 'tidemill_messages_published_total', { result: 'accepted' }))],
  ['Served, messages a second', rate(all => sum(all, 'tidemill_messages_served_total') + sum(all, 'tidemill_ws_messages_sent_total'))],
  ['Live readers', now => sum(now, 'tidemill_live_readers')],
  ['Connections', now => sum(now, 'tidemill_http_connections')],
  ['Refused and failed, a second', rate(all => sum(all, 'tidemill_messages_rejected_total') + failed(all))],
  ['Memory of the storage', now => sum(now, 'tidemill_backend_memory_used_bytes'), bytes],
];

/** Where messages are published: those that are refused there are counted one by one. */
const PUBLISHING = ['/api/v1/messages', '/api/v1/messages/bulk', '/api/v1/topics/{topic}/messages'];
/** Answers that say that the relay has failed, but for those to publishes. */
const failed = all => (all.get('tidemill_http_requests_total') ?? [])
  .filter(({ labels }) => labels.status?.startsWith('5') && !(labels.method === 'POST' && PUBLISHING.includes(labels.route)))
  .reduce((total, row) => total + row.value, 0);

const short = value => (value >= 100 ? number(Math.round(value)) : String(+value.toFixed(1)));

/** From how many days before its end a certificate is told of. */
const CERTIFICATE_DAYS = 14;

/** What somebody should look at, out of a reading. */
function concerns(all) {
  const told = [];
  const ends = sum(all, 'tidemill_tls_certificate_expires_timestamp_seconds');
  const days = Math.floor((ends * 1000 - Date.now()) / 86_400_000);
  if (ends > 0 && days < 0) told.push('The certificate of the relay has expired.');
  else if (ends > 0 && days < CERTIFICATE_DAYS) told.push(`The certificate of the relay ends in ${many(days, 'day')}.`);
  if (sum(all, 'tidemill_work_unattended_groups') > 0) {
    told.push(['Messages wait in groups, and nobody has asked for them for a minute. ', make('a', { href: '#/groups?unattended=true' }, 'Which groups')]);
  }
  const dead = sum(all, 'tidemill_work_dead');
  if (dead > 0) told.push([`${many(dead, 'dead letter')}: the page of each group says why. `, make('a', { href: '#/groups' }, 'All groups')]);
  return told.map(text => make('p', { class: 'error' }, text));
}

/** How much memory is used, of how much where that is known. */
const memoryOf = ({ memory_used_bytes: used, memory_limit_bytes: limit }) => (limit ? `${bytes(used) ?? '–'} of ${bytes(limit)}` : bytes(used));

/** What is wrong, or will be, out of what the relay says of itself. */
function warnings({ backend, kept = [] }) {
  return [
    ...kept.filter(each => each.is_reached)
      .map(each => `The topics of ${each.topics} keep the ${bytes(each.bytes_max)} that they may: publishing to them is refused.`),
    ...(backend.taken_over > 0 ? [`${number(backend.taken_over)} of topics and buckets are a part of a copy, and take no changes until they are whole; tidemill doctor names some.`] : []),
    ...backend.warnings,
  ];
}

function healthCard(health) {
  const { backend } = health;
  const isWell = health.status === 'healthy';
  const servers = backend.servers ?? [];
  return card(null,
    make('h2', {}, make('span', { class: isWell ? 'good' : 'bad' }, isWell ? '● Healthy' : '▲ Degraded')),
    ...warnings(health).map(warning => make('p', { class: 'error' }, warning)),
    facts([
      ['Node', `${health.node}, version ${health.version}, up ${seconds(health.uptime_seconds)}`],
      ['Storage', [backend.kind, backend.server && `${backend.server} ${backend.server_version ?? ''}`,
        backend.host && `${backend.host}:${backend.port}`].filter(Boolean).join(', ')],
      ['Memory', memoryOf(backend)],
      ['Takes messages', backend.accepts_writes ? 'yes' : backend.read_only ? 'no: read-only' : 'no'],
      ['Ping', backend.ping_ms === null ? null : `${backend.ping_ms} ms`],
      ['Connections lost since the start', number(backend.reconnects)],
      ['Limits are counted', health.limits],
    ]),
    servers.length > 0 && table([
      ['Server', row => row.address, NAME],
      ['Answers', row => make('span', { class: row.connected ? 'good' : 'bad' }, row.connected ? 'yes' : 'no')],
      ['Takes messages', row => (row.accepts_writes ? 'yes' : 'no')],
      ['Memory', memoryOf, NUMBER],
    ], servers, ''));
}

export async function show(place, _rest, signal) {
  const [health, concerned] = [make('div'), make('div')];
  const plots = PLOTS.map(([title, value, format]) => {
    const figure = make('div', { class: 'figure' }, '–');
    const plot = make('time-plot', { label: title, span: `${(90 * EVERY) / 60_000} minutes` });
    plot.format = format ?? short;
    return { value, figure, plot, card: card(title, figure, plot) };
  });
  const note = make('p', { class: 'quiet' }, 'All of this is of the node that answers. Of several, only the one that looked last over all topics tells of dead letters, and of groups that nobody asks for messages.');
  const grid = make('div', { class: 'grid' }, plots.map(({ card }) => card));
  const measured = make('div', { hidden: true }, concerned, grid, note);
  put(place, make('h1', {}, 'Overview'), health, measured);

  let before = null;
  const ask = async () => {
    const told = await get('health');
    if (told.backend) rewrite(health, healthCard(told));
    else health.replaceChildren(card(null, make('p', {}, `The relay is ${told.status}. Administrators see more.`)));
    measured.hidden = !told.backend;
    if (!told.backend) return;
    let now;
    try {
      now = { all: await metrics(), node: told.node, at: performance.now() };
    } catch (error) {
      if (error.status !== 404 && error.status !== 403) throw error;
      grid.hidden = true;
      note.textContent = 'This relay does not serve its metrics here (TIDEMILL_METRICS), so nothing is plotted.';
      return;
    }
    concerned.replaceChildren(...concerns(now.all));
    // Behind a load balancer another node may answer, whose counters are others.
    if (before?.node === now.node) {
      for (const { value, figure, plot } of plots) {
        const point = Math.max(0, value(now.all, before.all, (now.at - before.at) / 1000));
        figure.textContent = plot.format(point);
        plot.add(point);
      }
    }
    before = now;
  };
  await ask();
  setTimeout(() => signal.aborted || every(EVERY, signal, ask), 500);
}
