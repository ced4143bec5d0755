// One group: what waits and is worked on, pausing, seeking, its dead letters.

import { call, get, post, raw, read, url } from './api.js';
import { ACT, NAME, NUMBER, TEXT, card, confirmed, facts, field, heading, make, many, number, put, rewrite, seconds, table, when } from './dom.js';
import { again, button, every, form } from './app.js';
import { payloadOf } from './messages.js';
import { printed } from './json.js';
import { hrefOf } from './topics.js';

export async function show(place, [topic, group], signal) {
  const base = url`api/v1/topics/${topic}/groups/${group}`;
  const at = make('div');
  const look = async () => {
    const about = await get(base);
    rewrite(at, card(null,
      make('h2', {}, about.paused ? make('span', { class: 'warn' }, 'Paused: nothing is given out') : 'Gives messages out'),
      facts([
        ['Waiting', number(about.waiting)],
        ['In flight', `${number(about.in_flight)}, at ${many(about.consumers, 'consumer')}`],
        ['Waiting after a failure', number(about.in_backoff)],
        ['Oldest that waits', seconds(about.oldest_waiting_seconds)],
        ['Done', number(about.done)],
        ['Failed', number(about.failed)],
        ['Redelivered', number(about.redelivered)],
        ['Gone before they were done', number(about.gone)],
        ['Dead letters', number(about.dead)],
        ['Last claim', when(about.last_claim)],
        ['Last given out', about.last_delivered],
        ['A consumer has a message for', seconds(about.ack_wait)],
        ['Dead after failures', number(about.max_deliveries)],
        ['Order', about.ordering],
        ['Numbers are exact', about.exact ? 'yes' : 'no: other programs have worked on it'],
      ]),
      about.held_by?.length > 0 && make('div', {}, make('h2', {}, 'Who has messages'), table([
        ['Consumer', row => row.consumer, NAME],
        ['In flight', row => number(row.in_flight), NUMBER],
      ], about.held_by, ''),
      about.consumers > about.held_by.length && make('p', { class: 'quiet' }, `And ${many(about.consumers - about.held_by.length, 'other')}, with no more each.`))));
    return about;
  };
  const about = await look();
  const dead = make('div');
  const lookAtDead = async () => rewrite(dead, await deadLetters(about, base, lookAtDead));
  await lookAtDead();
  const seek = form(async ({ to }) => {
    if (!await confirmed(`Set ${group} to ${to}? What is behind it is given out again, and all receipts until now count no more.`, 'Seek')) return null;
    await post(`${base}/seek`, { to });
    await look();
    return 'It goes on from there.';
  }, make('div', { class: 'row' }, field('To', 'to', { required: true, placeholder: 'earliest, latest, -10m, or an id', spellcheck: 'false' }),
    make('button', {}, 'Seek')));
  const trace = form(async ({ id }, element) => {
    const told = await read(await raw('GET', `${base}/messages/${encodeURIComponent(id)}`));
    element.append(make('pre', { class: 'done' }, printed(told)));
  }, make('div', { class: 'row' }, field('Message id', 'id', { required: true, spellcheck: 'false' }),
    make('button', {}, 'What became of it')));
  put(place,
    make('p', { class: 'crumbs' }, make('a', { href: '#/topics' }, 'Topics'), ' / ', make('a', { href: hrefOf(topic, 'groups') }, topic)),
    heading(group), at,
    card('Dead letters', dead),
    card('Change', make('div', { class: 'row' },
      button('Pause', async () => { await post(`${base}/pause`); await look(); }),
      button('Go on', async () => { await post(`${base}/resume`); await look(); }),
      button('Delete the group', async () => {
        if (!await confirmed(`Delete the group ${group}? Its messages stay in the topic, and so do its dead letters.`, 'Delete it', group)) return;
        await call('DELETE', base);
        location.hash = hrefOf(topic, 'groups');
      }, 'danger')), seek, trace));
  setTimeout(() => signal.aborted || every(3_000, signal, look), 3_000);
}

async function deadLetters(about, base, lookAgain) {
  const path = url`api/v1/topics/${about.dead_letter}/messages` + '?order=desc&limit=100';
  const page = await get(path).catch(error => {
    if (error.status === 404 || error.status === 403) return { messages: [], why: error };
    throw error;
  });
  if (page.why?.status === 403) return make('p', { class: 'quiet' }, `To see them takes read for ${about.dead_letter}.`);
  const letters = page.messages
    .map(message => ({ message, origin: message.metadata?.dead_letter }))
    .filter(({ origin }) => origin?.topic === about.topic && origin?.group === about.group);
  const act = (name, done, body) => async () => {
    const said = await post(`${base}/${name}`, body);
    await lookAgain();
    return `${number(said.messages)} ${done}.`;
  };
  const one = (name, done) => ({ origin }) => button(name === 'redrive' ? 'Work on it again' : 'Delete',
    act(name, done, { ids: [origin.message_id] }), name === 'purge' ? 'danger' : null);
  const all = make('div', { class: 'row' },
    button('Work on all again', act('redrive', 'wait again', { all: true })),
    button('Delete all', async () => {
      if (!await confirmed(`Delete all ${number(about.dead)} dead letters of ${about.group}? Nobody has worked on them.`, 'Delete them')) return null;
      return act('purge', 'are deleted', { all: true })();
    }, 'danger'));
  return make('div', {}, table([
    ['Message', ({ origin }) => make('code', {}, origin.message_id)],
    ['Died', ({ origin }) => when(origin.died_at)],
    ['Why', ({ origin }) => [origin.reason, origin.error].filter(Boolean).join(': '), TEXT],
    ['Deliveries', ({ origin }) => number(origin.deliveries), NUMBER],
    ['Payload', ({ message }) => make('pre', {}, payloadOf(message)), TEXT],
    ['', letter => make('div', { class: 'stack' }, one('redrive', 'waits again')(letter), one('purge', 'is deleted')(letter)), ACT],
  ], letters, 'There is none.'), letters.length > 0 && all);
}
