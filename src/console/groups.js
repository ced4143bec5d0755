// One group: what waits and is worked on, pausing, seeking, what became of a message.

import { LONG, call, get, post, raw, read, url } from './api.js';
import { NAME, NUMBER, card, confirmed, facts, field, heading, make, many, number, put, rewrite, seconds, span, table, when } from './dom.js';
import { button, every, form, go } from './app.js';
import { letters } from './dead.js';
import { printed } from './json.js';
import { hrefOf } from './topics.js';

/** What stands in the way of the messages of a group, above all; else that it gives them out. */
function stateOf(about) {
  const { held_by: holders = [], max_in_flight: most, per_consumer_max: each } = about;
  // Where the number is not known, some may wait.
  const waits = about.waiting !== 0;
  if (about.paused) return 'Paused: nothing is given out';
  if (waits && most !== null && about.in_flight >= most) return `Consumers have the ${many(most, 'message')} that they may have together: the others wait`;
  if (waits && each !== null && holders.length > 0 && holders.length === about.consumers && holders.every(holder => holder.in_flight >= each)) {
    return `Each consumer that has messages has the ${number(each)} that it may have: the others wait for another one, or until some are done`;
  }
  return null;
}

function shown(about) {
  const state = stateOf(about);
  return card(null,
    make('h2', {}, state ? make('span', { class: 'warn' }, state) : 'Gives messages out'),
    facts([
      ['Waiting', number(about.waiting)],
      ['In flight', `${number(about.in_flight)}, at ${many(about.consumers, 'consumer')}`],
      ['Waiting after a failure', number(about.in_backoff)],
      ['For later in the topic', number(about.scheduled)],
      ['Oldest that waits', seconds(about.oldest_waiting_seconds)],
      ['Done', number(about.done)],
      ['Failed', number(about.failed)],
      ['Redelivered', number(about.redelivered)],
      ['Gone before they were done', number(about.gone)],
      ['Dead letters', number(about.dead)],
      ['Last claim', when(about.last_claim)],
      ['Last given out', about.last_delivered],
      ['A consumer has a message for', span(about.ack_wait)],
      ['And at most for', span(about.max_run)],
      ['In flight at most', number(about.max_in_flight)],
      ['At one consumer at most', number(about.per_consumer_max)],
      ['Dead after failures', number(about.max_deliveries)],
      ['Waits after each failure', about.backoff.map(span).join(', ')],
      ['Dead letters go to', make('a', { href: hrefOf(about.dead_letter) }, about.dead_letter)],
      ['Order', about.ordering],
      ['Numbers are exact', about.exact ? 'yes' : 'no: other programs have worked on it, or messages were deleted before they were given out'],
    ]),
    about.held_by?.length > 0 && make('div', {}, make('h2', {}, 'Who has messages'), table([
      ['Consumer', row => row.consumer, NAME],
      ['In flight', row => number(row.in_flight), NUMBER],
    ], about.held_by, ''),
    about.consumers > about.held_by.length && make('p', { class: 'quiet' }, `And ${many(about.consumers - about.held_by.length, 'other')}, with no more each.`)));
}

export async function show(place, [topic, group], signal) {
  const base = url`api/v1/topics/${topic}/groups/${group}`;
  put(place,
    make('p', { class: 'crumbs' }, make('a', { href: '#/topics' }, 'Topics'), ' / ', make('a', { href: hrefOf(topic, 'groups') }, topic)),
    heading(group));
  const at = make('div');
  const dead = letters(base, () => look());
  const look = async () => {
    const about = await get(base);
    rewrite(at, shown(about));
    dead.tell(about);
    return about;
  };
  await look();
  await dead.begin();
  const seek = form(async ({ to }) => {
    if (!await confirmed(`Set ${group} to ${to}? What is behind it is given out again, and all receipts until now count no more.`, 'Seek')) return null;
    await post(`${base}/seek`, { to }, LONG);
    await look();
    return 'It goes on from there.';
  }, make('div', { class: 'row' }, field('To', 'to', { required: true, placeholder: 'earliest, latest, -10m, or an id', spellcheck: 'false' }),
    make('button', {}, 'Seek')));
  const trace = form(async ({ id }, element) => {
    const told = await read(await raw('GET', base + url`/messages/${id}`));
    element.append(make('pre', { class: 'done' }, printed(told)));
  }, make('div', { class: 'row' }, field('Message id', 'id', { required: true, spellcheck: 'false' }),
    make('button', {}, 'What became of it')));
  put(place, at,
    card('Dead letters', dead.place),
    card('Change', make('div', { class: 'row' },
      button('Pause', async () => { await post(`${base}/pause`); await look(); }),
      button('Go on', async () => { await post(`${base}/resume`); await look(); }),
      button('Delete the group', async () => {
        if (!await confirmed(`Delete the group ${group}? Its messages stay in the topic, and so do its dead letters.`, 'Delete it', group)) return;
        await call('DELETE', base, LONG);
        go(hrefOf(topic, 'groups'));
      }, 'danger')), seek, trace));
  setTimeout(() => signal.aborted || every(3_000, signal, look), 3_000);
}
