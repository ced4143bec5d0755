// The dead letters of a group: a part of its page. Groups can share the topic of their letters, so those of others are left out.

import { LONG, get, post, url } from './api.js';
import { ACT, NUMBER, TEXT, confirmed, make, many, number, rewrite, table, when, write } from './dom.js';
import { button } from './app.js';
import { payloadOf } from './messages.js';

/** Messages of the topic of letters that are asked for at once. */
const PAGE = 100;
/** Pages that are looked through for one more letter of the group, before somebody is asked to go on. */
const PAGES_MAX = 10;

/** What was done with letters, in a sentence. */
function outcome(done, what) {
  const counted = (count, [one, more]) => (count === 1 ? `1 ${one}` : `${number(count)} ${more}`);
  return `${[
    counted(done.messages, what),
    done.copies > 0 && `${counted(done.copies, ['of them was', 'of them were'])} gone from the topic, and published anew`,
    done.gone > 0 && `${counted(done.gone, ['is gone', 'are gone'])}, message and letter`,
    done.unknown > 0 && counted(done.unknown, ['is no dead letter of this group', 'are no dead letters of this group']),
  ].filter(Boolean).join('; ')}.`;
}

const AGAIN = ['redrive', ['message waits again', 'messages wait again']];
const DELETE = ['purge', ['dead letter is deleted', 'dead letters are deleted']];

/**
 * The part of the page: `place` is where it stands, `tell` has it show how many there are, and `begin` has it list them.
 * `look` has the page look at the group again, which something was done with.
 */
export function letters(base, look) {
  const [said, list, rest, all] = [make('div'), make('div'), make('div'), make('div')];
  let about;
  let [found, next] = [[], null];

  const act = ([verb, what], body) => async () => {
    write(said);
    const done = await post(`${base}/${verb}`, body, LONG);
    await look();
    await begin();
    write(said, make('p', { class: 'done', role: 'status' }, outcome(done, what)));
  };
  const purgeAll = async () => {
    if (!await confirmed(`Delete ${about.dead > 0 ? `all ${many(about.dead, 'dead letter')}` : 'all dead letters'} of ${about.group}? Nobody has worked on them.`, 'Delete them')) return;
    await act(DELETE, { all: true })();
  };

  /** Looks for more of them: until it has some, or has looked through enough. */
  const more = async () => {
    const since = found.length;
    for (let pages = 0; pages < PAGES_MAX && found.length === since; pages += 1) {
      const path = url`api/v1/topics/${about.dead_letter}/messages` + `?order=desc&limit=${PAGE}${next ? `&cursor=${encodeURIComponent(next)}` : ''}`;
      const page = await get(path);
      found.push(...page.messages.map(message => ({ message, origin: message.metadata?.dead_letter }))
        .filter(({ origin }) => origin?.topic === about.topic && origin?.group === about.group));
      next = page.next_cursor;
      if (!next) break;
    }
    show();
  };

  const show = () => {
    const one = (kind, title, danger) => ({ origin }) => button(title, act(kind, { ids: [origin.message_id] }), danger);
    const [redrive, purge] = [one(AGAIN, 'Work on it again', null), one(DELETE, 'Delete', 'danger')];
    const nothing = next ? 'None was found so far.' : about.dead > 0 ? `The letters are in ${about.dead_letter} no more.` : 'There is none.';
    rewrite(list, table([
      ['Message', ({ origin }) => make('code', {}, origin.message_id)],
      ['Died', ({ origin }) => when(origin.died_at)],
      ['Why', ({ origin }) => [origin.reason, origin.error].filter(Boolean).join(': '), TEXT],
      ['Deliveries', ({ origin }) => number(origin.deliveries), NUMBER],
      ['Payload', ({ message }) => make('pre', {}, payloadOf(message)), TEXT],
      ['', letter => make('div', { class: 'stack' }, redrive(letter), purge(letter)), ACT],
    ], found, nothing));
    rewrite(rest, next && found.length < about.dead && make('p', {}, button('More', more)));
  };

  const begin = async () => {
    [found, next] = [[], null];
    try {
      await more();
    } catch (error) {
      const told = { topic_not_found: 'There is none.', forbidden: `To see them takes read for ${about.dead_letter}.` }[error.code];
      if (!told) throw error;
      rewrite(list, make('p', { class: 'quiet' }, told));
      rewrite(rest);
    }
  };

  const tell = now => {
    const isOther = about?.dead !== now.dead;
    about = now;
    if (!isOther) return;
    rewrite(all, about.dead > 0 && make('div', { class: 'row' }, make('span', {}, many(about.dead, 'dead letter')),
      button('Work on all again', act(AGAIN, { all: true })),
      button('Delete all', purgeAll, 'danger')));
  };
  return { place: make('div', {}, said, list, rest, all), tell, begin };
}
