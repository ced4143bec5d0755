// One topic: its messages, live and page by page; publishing; its groups; what waits for later; its settings and its end.

import { LONG, Refused, call, follow, get, listed, post, url } from './api.js';
import { ACT, NAME, NUMBER, TEXT, bytes, card, confirmed, facts, field, heading, make, many, number, put, rewrite, seconds, span, table, when, write } from './dom.js';
import { NoPage, again, button, every, form, go, pauses, told } from './app.js';
import { gapRow, messageRow, payloadOf } from './messages.js';
import { LOOK_EVERY, UNDESCRIBED, hrefOf, paceOf } from './topics.js';

const TABS = [
  ['', 'Messages', messages],
  ['live', 'Live', live],
  ['publish', 'Publish', publish],
  ['groups', 'Groups', groups],
  ['later', 'For later', later],
  ['settings', 'Settings', settings],
];
/** How soon what a topic has is looked at again where something has come to it, in milliseconds. */
const SOON = 500;
/** Rows that a live tail keeps. */
const ROWS_MAX = 500;

/** What is known of a topic: all of it; of one that cannot be described what the list has; or `why` nothing is. */
async function known(name) {
  try {
    if (name !== UNDESCRIBED) return { about: await get(url`api/v1/topics/${name}`) };
    const [about] = await get(url`api/v1/topics?match=${name}`);
    return about ? { about } : { about: null, why: 'untold' };
  } catch (error) {
    const why = { topic_not_found: 'absent', forbidden: 'untold' }[error.code];
    if (!why) throw error;
    return { about: null, why };
  }
}

export async function show(place, [name, tab = ''], signal, query) {
  const [, , shown] = TABS.find(([part]) => part === tab) ?? [];
  if (!shown) throw new NoPage();
  const first = await known(name);
  const { about, why } = first;
  const isOfWhatIsThere = shown === messages || shown === settings;
  put(place, make('p', { class: 'crumbs' }, make('a', { href: '#/topics' }, 'Topics')), heading(name));
  const soon = head(place, name, first, signal, now => {
    // What is shown of a topic that is there is shown once it is.
    if (isOfWhatIsThere && why === 'absent' && now.why !== 'absent') again();
  });
  put(place, make('div', { class: 'tabs', role: 'navigation', 'aria-label': 'Of this topic' }, TABS.map(([part, title]) =>
    make('a', { href: hrefOf(name, part), 'aria-current': part === tab ? 'page' : null }, title))));
  if (!(isOfWhatIsThere && why === 'absent')) await shown(place, name, about, signal, query, soon);
}

/**
 * What a topic has, above its tabs. It is looked at again now and then, and soon after what is returned was called; `came`
 * is told each time.
 */
function head(place, name, first, signal, came) {
  const at = make('div');
  const pace = paceOf();
  const has = now => {
    if (name === UNDESCRIBED) return `How much is in a topic of the name ${name} is not told`;
    const second = pace(now);
    return [
      many(now.length, 'message'), now.bytes === null ? null : bytes(now.bytes),
      now.oldest_age_seconds === null ? null : `the oldest ${seconds(now.oldest_age_seconds)} old`,
      second === null ? null : `${second} a second`, `${many(now.readers, 'live reader')} on this node`,
      now.state + (now.reason ? `: ${now.reason}` : ''),
    ].filter(part => part !== null).join(', ');
  };
  const tell = ({ about, why }) => write(at,
    why === 'absent' && make('p', { class: 'error' }, 'There is no such topic now. It is made with its first message.'),
    why === 'untold' && make('p', { class: 'quiet' }, 'What it has is shown to who may read it.'),
    about && make('p', { class: 'quiet' }, has(about), about.created_at && [', made ', when(about.created_at)],
      about.owner_id && ` by ${about.owner_id}`, about.description && ` – ${about.description}`));
  tell(first);
  put(place, at);
  if (name === UNDESCRIBED || first.why === 'untold') return () => {};
  const look = async () => {
    const now = await known(name);
    if (signal.aborted) return;
    tell(now);
    came(now);
  };
  setTimeout(() => signal.aborted || every(LOOK_EVERY, signal, look), LOOK_EVERY);
  let due = null;
  return () => {
    due ??= setTimeout(() => {
      due = null;
      // Where that fails, the next look says so.
      if (!signal.aborted) look().catch(() => {});
    }, SOON);
  };
}

async function messages(place, name, _about, signal, query) {
  const [after, before] = [query.get('after'), query.get('before')];
  const path = url`api/v1/topics/${name}/messages` + '?limit=50'
    + (after ? `&after=${encodeURIComponent(after)}` : before ? `&order=desc&cursor=${encodeURIComponent(before)}` : '&order=desc');
  const where = make('form', { class: 'row', onsubmit: event => {
    event.preventDefault();
    const from = new FormData(where).get('from').trim();
    go(`${hrefOf(name)}${from ? `?after=${encodeURIComponent(from)}` : ''}`);
  } }, field('From a time, an id, or a time ago', 'from', { value: after ?? '', placeholder: '-10m', spellcheck: 'false' }),
  make('button', {}, 'Go there'));
  const at = card(null, where);
  // What was asked for wrongly is answered below the form.
  put(place, at);
  const page = await get(path);
  const rows = make('div');
  const remove = message => button('Delete', async () => {
    if (!await confirmed(`Delete the message ${message.message_id} for good?`, 'Delete it')) return;
    await call('DELETE', url`api/v1/topics/${name}/messages/${message.message_id}`);
    again();
  }, 'danger');
  if (page.age_ms !== undefined) {
    put(at, make('p', { class: 'quiet' }, `This is read from a replica, which may be ${number(page.age_ms)} ms behind: what was deleted or trimmed since then may stand here.`));
  }
  if (page.gap) rows.append(gapRow(page.gap));
  rows.append(...page.messages.map(message => messageRow(message, signal, [remove(message)])));
  const search = field('Search in what is shown', 'search', { type: 'search' });
  const found = make('span', { class: 'quiet', role: 'status' });
  search.addEventListener('input', event => {
    const text = event.target.value.toLowerCase();
    let shown = 0;
    for (const row of rows.querySelectorAll('.message')) {
      row.hidden = !row.dataset.text.includes(text);
      shown += row.hidden ? 0 : 1;
    }
    found.textContent = text ? `${shown} of ${page.messages.length}` : '';
  });
  put(where, search, found);
  const last = page.next_cursor;
  const nothing = last ? 'There is no message here: what was here has expired.' : 'There is no message here.';
  put(at, page.messages.length === 0 && make('p', { class: 'quiet' }, nothing), rows,
    make('div', { class: 'row' },
      make('a', { href: hrefOf(name) }, 'The newest'),
      make('a', { href: `${hrefOf(name)}?after=earliest` }, 'The oldest'),
      last && make('a', { href: `${hrefOf(name)}?${after ? 'after' : 'before'}=${encodeURIComponent(last)}` },
        after ? 'Newer' : 'Older')));
}

async function live(place, name, _about, signal, _query, soon) {
  const rows = make('div');
  const state = make('span', { class: 'quiet', role: 'status' }, 'Connecting…');
  let [isPaused, held, count, cursor, closed, ended] = [false, [], 0, 'latest', null, null];
  const add = element => {
    rows.prepend(element);
    while (rows.childElementCount > ROWS_MAX) rows.lastElementChild.remove();
  };
  const say = () => {
    state.textContent = isPaused ? `Paused; ${held.length}${held.length === ROWS_MAX ? ' or more' : ''} wait` : `Live; ${count} came`;
  };
  const came = element => {
    if (!isPaused) add(element);
    else if (held.push(element) > ROWS_MAX) held.shift();
    say();
  };
  const pause = make('button', { 'aria-pressed': 'false', onclick: () => {
    isPaused = !isPaused;
    pause.setAttribute('aria-pressed', String(isPaused));
    pause.textContent = isPaused ? 'Go on' : 'Pause';
    if (!isPaused) held.splice(0).forEach(add);
    say();
  } }, 'Pause');
  put(place, card(null, make('div', { class: 'row' }, pause,
    make('button', { onclick: () => rows.replaceChildren() }, 'Clear'), state), rows));
  const took = line => {
    if (line.type === 'subscribed') {
      if (cursor === 'latest') cursor = line.cursors[name] ?? cursor;
      say();
      soon();
    } else if (line.type === 'message') {
      [cursor, count] = [line.message_id, count + 1];
      came(messageRow(line, signal));
      soon();
    } else if (line.type === 'gap') came(gapRow(line));
    else if (line.type === 'closed') closed = line;
    else if (line.type === 'end') {
      cursor = line.cursors?.[name] ?? cursor;
      ended = line.reason;
    }
  };
  const over = () => {
    if (isPaused) pause.click();
    add(make('p', { class: 'gap', role: 'note' },
      `The topic is ${closed.state}${closed.reason ? `: ${closed.reason}` : ''}. It takes no messages any more. What it has is under `,
      make('a', { href: hrefOf(name) }, 'Messages'), '; to begin anew, delete it under ', make('a', { href: hrefOf(name, 'settings') }, 'Settings'),
      ', or publish to a topic of another name.'));
    state.textContent = `Ended; ${count} came`;
    pause.disabled = true;
  };
  // A stream that breaks is begun again behind what it had, so nothing is missed; what is gone meanwhile comes as a gap.
  (async () => {
    const between = pauses();
    while (!signal.aborted) {
      const before = count;
      ended = null;
      try {
        await follow(url`api/v1/topics/${name}/messages` + `?after=${encodeURIComponent(cursor)}`, signal, took);
      } catch (error) {
        if (signal.aborted) return;
        if (error.status >= 400 && error.status < 500 && error.status !== 429) {
          rows.prepend(told(error));
          state.textContent = 'Ended';
          return;
        }
      }
      if (signal.aborted) return;
      if (closed) return over();
      if (count > before) between.begin();
      write(state, ended ? `The relay has ended it (${ended}); connecting again behind the last message…`
        : 'The connection broke; connecting again behind the last message…');
      await between.wait();
    }
  })();
}

/** Reads JSON that was typed, or says what is wrong with it. */
function read(what, text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Refused(400, { title: `${what} is no JSON: ${error.message}` });
  }
}

async function publish(place, name, about) {
  const isOver = ['closed', 'cancelled'].includes(about?.state);
  put(place, card('Publish a message', form(async ({ payload, kind, later: delay, ttl, key, metadata }) => {
    const body = { topic: name };
    if (metadata) read('The metadata', metadata);
    if (ttl) body.ttl = Number(ttl);
    if (delay) body.delay = delay;
    if (kind === 'text') body.payload_text = payload;
    else read('The payload', payload);
    // JSON goes as it was typed, so that no number changes on the way.
    const typed = [kind !== 'text' && `"payload":${payload},`, metadata && `"metadata":${metadata},`].filter(Boolean);
    const sent = `{${typed.join('')}${JSON.stringify(body).slice(1)}`;
    const headers = { 'content-type': 'application/json', ...(key && { 'idempotency-key': key }) };
    const answer = await call('POST', 'api/v1/messages', { body: sent, headers });
    return answer.message_id ? `Kept as ${answer.message_id}.` : `Comes at ${answer.deliver_at}.`;
  }, field('Payload', 'payload', { required: true, spellcheck: 'false' }, 'textarea'),
  make('div', { class: 'row' },
    field('It is', 'kind', { options: ['JSON', 'text'] }, 'select'),
    field('Metadata (a JSON object)', 'metadata', { placeholder: '{"source": "shop"}', spellcheck: 'false' }),
    field('Idempotency key', 'key', { spellcheck: 'false' }),
    field('Seconds to live', 'ttl', { type: 'number', min: 1 }),
    field('Later', 'later', { placeholder: '10m' })),
  isOver && make('p', { class: 'warn' }, `The topic is ${about?.state}: it takes no messages any more.`),
  make('button', { class: 'main', disabled: isOver }, 'Publish'))));
}

async function groups(place, name, _about, signal) {
  const at = make('div');
  const look = async () => {
    const all = await get(url`api/v1/topics/${name}/groups`);
    rewrite(at, table([
      ['Group', row => make('a', { href: `#/group/${encodeURIComponent(name)}/${encodeURIComponent(row.group)}` }, row.group), NAME],
      ['Waiting', row => number(row.waiting), NUMBER],
      ['In flight', row => number(row.in_flight), NUMBER],
      ['Consumers', row => number(row.consumers), NUMBER],
      ['Oldest', row => seconds(row.oldest_waiting_seconds), NUMBER],
      ['Redelivered', row => number(row.redelivered), NUMBER],
      ['Dead', row => number(row.dead), NUMBER],
      ['', row => (row.paused ? make('span', { class: 'warn' }, 'paused') : null)],
    ], all, 'No group works on this topic.'));
  };
  await look();
  put(place, card(null, at), make('details', {}, make('summary', {}, 'Make a group'), form(async ({ group, start }) => {
    await call('PUT', url`api/v1/topics/${name}/groups/${group}`, { body: start ? { start } : {}, headers: { 'if-none-match': '*' } });
    await look();
    return `${group} is there.`;
  }, make('div', { class: 'row' },
    field('Name', 'group', { required: true, spellcheck: 'false' }),
    field('It begins at', 'start', { placeholder: 'earliest', spellcheck: 'false' }),
    make('button', { class: 'main' }, 'Make it')))));
  setTimeout(() => signal.aborted || every(5_000, signal, look), 5_000);
}

async function later(place, name) {
  const { rows, next } = await listed(url`api/v1/topics/${name}/scheduled`);
  const recurring = await get(url`api/v1/topics/${name}/recurring`);
  const shown = row => make('pre', {}, payloadOf(row));
  const at = id => url`api/v1/topics/${name}/scheduled/${id}`;
  put(place, card('Messages for later', table([
    ['Comes', row => when(row.deliver_at)],
    ['Payload', shown, TEXT],
    ['', row => make('div', { class: 'row' },
      button('Publish now', async () => { await post(`${at(row.schedule_id)}/now`); again(); }),
      button('Cancel', async () => {
        if (!await confirmed('Cancel this message? It is not published then.', 'Cancel it')) return;
        await call('DELETE', at(row.schedule_id));
        again();
      }, 'danger')), ACT],
  ], rows, 'Nothing waits for its time.'), next && make('p', { class: 'quiet' }, 'There are more; these are the next ones.')),
  card('Again and again', table([
    ['Name', row => row.name, NAME],
    ['Times', row => make('code', {}, row.cron)],
    ['Zone', row => row.timezone],
    ['Next', row => when(row.next_at)],
    ['Payload', shown, TEXT],
    ['', row => button('End it', async () => {
      if (!await confirmed(`Publish ${row.name} no longer?`, 'End it')) return;
      await call('DELETE', url`api/v1/topics/${name}/recurring/${row.name}`);
      again();
    }, 'danger'), ACT],
  ], recurring, 'No message recurs.')));
}

/** What is set of a topic, as its fields have it. */
const FIELDS = [
  ['description', String], ['retention_seconds', Number], ['max_messages', Number], ['max_bytes', Number], ['when_full', String],
  ['idle_seconds', Number], ['compact_by', String],
];

/** The form of what a topic keeps. It sends what somebody has changed in it, and nothing else: others change it, too. */
function keeps(name, about) {
  // Line ends as a field has them.
  const valueOf = value => `${value ?? ''}`.replace(/\r\n?/g, '\n');
  const change = form(async () => {
    const keep = change.elements.keep_until_acked;
    const body = {};
    for (const [key, read] of FIELDS) {
      const { value } = change.elements[key];
      if (value !== were[key]) body[key] = value === '' ? null : read(value);
    }
    if (keep.checked !== were.keep_until_acked) body.keep_until_acked = keep.checked;
    if (Object.keys(body).length === 0) return 'Nothing was changed, so nothing was sent.';
    fill(await call('PATCH', url`api/v1/topics/${name}`, { body }));
    return 'Changed.';
  }, make('div', { class: 'row' },
    field('Seconds for which messages are kept', 'retention_seconds', { type: 'number', min: 1 }),
    field('Messages that are kept', 'max_messages', { type: 'number', min: 1 }),
    field('Bytes that are kept', 'max_bytes', { type: 'number', min: 1 }),
    field('Where it is full', 'when_full', { options: ['drop_old', 'refuse'] }, 'select'),
    field('Keep until groups are done', 'keep_until_acked', { type: 'checkbox' }),
    field('Ends after seconds without use', 'idle_seconds', { type: 'number', min: 1 }),
    field('Compacted by (a field of the metadata)', 'compact_by', { spellcheck: 'false' })),
  field('Description', 'description', {}, 'textarea'),
  make('p', { class: 'quiet' }, 'What is empty is as the relay is set.'),
  make('button', { class: 'main' }, 'Change it'));
  let were;
  const fill = topic => {
    were = { keep_until_acked: topic.keep_until_acked };
    change.elements.keep_until_acked.checked = topic.keep_until_acked;
    for (const [key] of FIELDS) {
      were[key] = valueOf(topic[key]);
      change.elements[key].value = were[key];
    }
  };
  fill(about);
  return change;
}

async function settings(place, name, about) {
  const trim = form(async ({ keep }) => {
    if (!await confirmed(`Remove all but the newest ${keep} messages of ${name}? Readers that are behind are told a gap.`, 'Trim it')) return null;
    const done = await post(url`api/v1/topics/${name}/trim`, { keep: Number(keep) }, LONG);
    return `${many(done.removed, 'message')} removed.`;
  }, make('div', { class: 'row' },
    field('Messages that stay', 'keep', { type: 'number', min: 0, required: true }), make('button', { class: 'danger' }, 'Trim')));
  const cancel = form(async ({ reason }) => {
    if (!await confirmed(`Cancel ${name}? It takes no messages any more, and who publishes or works is told why: ${reason}`, 'Cancel it')) return;
    await post(url`api/v1/topics/${name}/cancel`, { reason });
    again();
  }, make('div', { class: 'row' }, field('Why it is cancelled', 'reason', { required: true }), make('button', {}, 'Cancel')));
  const end = make('div', { class: 'row' },
    button('Close', async () => {
      if (!await confirmed(`Close ${name}? It takes no messages any more, and its readers are told once they have all.`, 'Close')) return;
      await post(url`api/v1/topics/${name}/close`, {});
      again();
    }),
    button('Delete', async () => {
      const what = about?.length === undefined ? 'all its messages' : many(about.length, 'message');
      if (!await confirmed(`Delete ${name} with ${what}, its groups, and what waits for later? Nothing brings it back.`, 'Delete it', name)) return;
      await call('DELETE', url`api/v1/topics/${name}`, LONG);
      go('#/topics');
    }, 'danger'));
  put(place,
    about && card('As it is', facts([
      ['Owner', about.owner_id], ['Made', when(about.created_at)], ['First message', about.first_id], ['Last message', about.last_id],
      ['Bytes that are kept', bytes(about.max_bytes)],
    ])),
    about && card('What it keeps', keeps(name, about)), card('Trim', trim), card('End', cancel, end));
}
