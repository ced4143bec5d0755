// One topic: its messages, live and page by page; publishing; its groups; what waits for later; its settings and its end.

import { Refused, call, follow, get, listed, post, url } from './api.js';
import { ACT, NAME, NUMBER, TEXT, bytes, card, confirmed, facts, field, heading, make, many, number, put, rewrite, seconds, table, when, write } from './dom.js';
import { NoPage, again, attempt, button, every, form, pauses, told } from './app.js';
import { gapRow, messageRow, payloadOf } from './messages.js';
import { LOOK_EVERY, hrefOf, paceOf } from './topics.js';

const TABS = [
  ['', 'Messages', messages],
  ['live', 'Live', live],
  ['publish', 'Publish', publish],
  ['groups', 'Groups', groups],
  ['later', 'For later', later],
  ['settings', 'Settings', settings],
];
/** Rows that a live tail keeps. */
const ROWS_MAX = 500;

export async function show(place, [name, tab = ''], signal, query) {
  const [, , shown] = TABS.find(([part]) => part === tab) ?? [];
  if (!shown) throw new NoPage();
  const about = await get(url`api/v1/topics/${name}`).catch(error => {
    if (error.status === 404) return null;
    throw error;
  });
  put(place, make('p', { class: 'crumbs' }, make('a', { href: '#/topics' }, 'Topics')), heading(name));
  if (!about) put(place, make('p', { class: 'error' }, 'There is no such topic now. It is made with its first message.'));
  else {
    const has = make('span');
    const pace = paceOf();
    const tell = now => {
      const second = pace(now);
      write(has, [
        many(now.length, 'message'), now.bytes === null ? null : bytes(now.bytes),
        now.oldest_age_seconds === null ? null : `the oldest ${seconds(now.oldest_age_seconds)} old`,
        second === null ? null : `${second} a second`, `${many(now.readers, 'live reader')} on this node`,
        now.state + (now.reason ? `: ${now.reason}` : ''),
      ].filter(part => part !== null).join(', '));
    };
    tell(about);
    put(place, make('p', { class: 'quiet' }, has, about.created_at && [', made ', when(about.created_at)],
      about.owner_id && ` by ${about.owner_id}`, about.description && ` – ${about.description}`));
    const look = async () => tell(await get(url`api/v1/topics/${name}`));
    setTimeout(() => signal.aborted || every(LOOK_EVERY, signal, look), LOOK_EVERY);
  }
  put(place, make('div', { class: 'tabs', role: 'navigation', 'aria-label': 'Of this topic' }, TABS.map(([part, title]) =>
    make('a', { href: hrefOf(name, part), 'aria-current': part === tab ? 'page' : null }, title))));
  await shown(place, name, about, signal, query);
}

async function messages(place, name, about, _signal, query) {
  if (!about) return;
  const [after, before] = [query.get('after'), query.get('before')];
  const path = url`api/v1/topics/${name}/messages` + '?limit=50'
    + (after ? `&after=${encodeURIComponent(after)}` : before ? `&order=desc&cursor=${encodeURIComponent(before)}` : '&order=desc');
  const go = make('form', { class: 'row', onsubmit: event => {
    event.preventDefault();
    const from = new FormData(go).get('from').trim();
    location.hash = `${hrefOf(name)}${from ? `?after=${encodeURIComponent(from)}` : ''}`;
  } }, field('From a time, an id, or a time ago', 'from', { value: after ?? '', placeholder: '-10m', spellcheck: 'false' }),
  make('button', {}, 'Go there'));
  const at = card(null, go);
  // What was asked for wrongly is answered below the form.
  put(place, at);
  const page = await get(path);
  const rows = make('div');
  const remove = message => button('Delete', async () => {
    if (!await confirmed(`Delete the message ${message.message_id} for good?`, 'Delete it')) return;
    await call('DELETE', url`api/v1/topics/${name}/messages/${message.message_id}`);
    again();
  }, 'danger');
  if (page.gap) rows.append(gapRow(page.gap));
  rows.append(...page.messages.map(message => messageRow(message, [remove(message)])));
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
  put(go, search, found);
  const last = page.next_cursor;
  put(at, page.messages.length === 0 && make('p', { class: 'quiet' }, 'There is no message here.'), rows,
    make('div', { class: 'row' },
      make('a', { href: hrefOf(name) }, 'The newest'),
      make('a', { href: `${hrefOf(name)}?after=earliest` }, 'The oldest'),
      last && page.messages.length > 0 && make('a', { href: `${hrefOf(name)}?${after ? 'after' : 'before'}=${encodeURIComponent(last)}` },
        after ? 'Newer' : 'Older')));
}

async function live(place, name, _about, signal) {
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
    } else if (line.type === 'message') {
      [cursor, count] = [line.message_id, count + 1];
      came(messageRow(line));
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
  about && about.state !== 'open' && make('p', { class: 'warn' }, `The topic is ${about.state}: it takes no messages any more.`),
  make('button', { class: 'main', disabled: about && about.state !== 'open' }, 'Publish'))));
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

async function settings(place, name, about) {
  if (!about) return;
  const change = form(async ({ description, retention, max, size }, element) => {
    const or = (text, read) => (text === undefined ? null : read(text));
    await call('PATCH', url`api/v1/topics/${name}`, { body: {
      description: or(description, String), retention_seconds: or(retention, Number), max_messages: or(max, Number), max_bytes: or(size, Number),
      when_full: new FormData(element).get('when_full'), keep_until_acked: new FormData(element).has('keep'),
    } });
    return 'Changed.';
  }, make('div', { class: 'row' },
    field('Description', 'description', { value: about.description ?? '' }),
    field('Seconds for which messages are kept', 'retention', { type: 'number', min: 1, value: about.retention_seconds ?? '' }),
    field('Messages that are kept', 'max', { type: 'number', min: 1, value: about.max_messages ?? '' }),
    field('Bytes that are kept', 'size', { type: 'number', min: 1, value: about.max_bytes ?? '' }),
    field('Where it is full', 'when_full', { options: ['drop_old', 'refuse'] }, 'select'),
    field('Keep until groups are done', 'keep', { type: 'checkbox', checked: about.keep_until_acked })),
  make('p', { class: 'quiet' }, 'What is empty is as the relay is set.'),
  make('button', { class: 'main' }, 'Change it'));
  change.elements.when_full.value = about.when_full;
  const trim = form(async ({ keep }) => {
    if (!await confirmed(`Remove all but the newest ${keep} messages of ${name}? Readers that are behind are told a gap.`, 'Trim it')) return null;
    const done = await post(url`api/v1/topics/${name}/trim`, { keep: Number(keep) });
    return `${many(done.removed, 'message')} removed.`;
  }, make('div', { class: 'row' },
    field('Messages that stay', 'keep', { type: 'number', min: 0, required: true }), make('button', { class: 'danger' }, 'Trim')));
  const end = make('div', { class: 'row' });
  const ends = (title, path, question) => button(title, async () => {
    if (!await confirmed(question, title)) return;
    await post(url`api/v1/topics/${name}` + path, path === '/cancel' ? { reason: 'from the console' } : {});
    again();
  });
  end.append(
    ends('Close', '/close', `Close ${name}? It takes no messages any more, and its readers are told once they have all.`),
    ends('Cancel', '/cancel', `Cancel ${name}? It takes no messages any more, and workers are told that it was cancelled.`),
    button('Delete', async () => {
      if (!await confirmed(`Delete ${name} with ${many(about.length, 'message')}, its groups, and what waits for later? Nothing brings it back.`, 'Delete it', name)) return;
      await call('DELETE', url`api/v1/topics/${name}`);
      location.hash = '#/topics';
    }, 'danger'));
  put(place,
    card('As it is', facts([
      ['Owner', about.owner_id], ['Made', when(about.created_at)], ['First message', about.first_id], ['Last message', about.last_id],
      ['Bytes that are kept', bytes(about.max_bytes)], ['Ends after', seconds(about.idle_seconds)], ['Compacted by', about.compact_by],
    ])),
    card('What it keeps', change), card('Trim', trim), card('End', end));
}
