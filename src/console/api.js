// What the console asks of the relay: the API that everybody has, and nothing else.

import { parse } from './json.js';

/** Where the relay is: the page stands at `console/` below it, under whatever path a proxy has put it. */
const ROOT = new URL('..', document.baseURI);
/** Where a token is kept that was typed: for this tab, until it is closed. */
const KEPT = 'tidemill-token';
/** How long an answer may take, in milliseconds: usually, and to what may have much to do. A stream has no such bound. */
const TIMEOUT = 15_000;
const LONG_TIMEOUT = 120_000;
/** Headers whose values somebody has typed, as people call them. */
const TYPED = { authorization: 'The token', 'idempotency-key': 'The idempotency key', 'content-type': 'The content type' };

/** What a proxy answers that does not reach the relay. */
const BY_PROXIES = [502, 503, 504];

let token = sessionStorage.getItem(KEPT);

export function useToken(text) {
  token = text;
  if (text) sessionStorage.setItem(KEPT, text);
  else sessionStorage.removeItem(KEPT);
}

/** What the relay has said that is no success: a problem, or that it does not answer. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.problem = problem;
  }

  /** What programs tell problems apart by; undefined of what is not the relay's. */
  get code() {
    return this.problem.code;
  }

  /** Whether the same may be answered a little later, as the relay, or its storage, is away. */
  get isForNow() {
    return [0, 503, 504].includes(this.status);
  }
}

/** Tells whether the relay answers, to whoever listens for `link`. */
export const events = new EventTarget();
function tell(isThere) {
  events.dispatchEvent(new CustomEvent('link', { detail: isThere }));
}

/** Where something is, with each part of the path escaped: ``url`topics/${name}` ``. */
export function url(parts, ...values) {
  // In a path these mean a folder, however they are written.
  const wrong = values.find(value => value === '.' || value === '..');
  if (wrong) throw new Refused(400, { title: `${wrong} is no name` });
  return parts.reduce((path, part, at) => path + encodeURIComponent(values[at - 1]) + part);
}

/** Says that the relay does not answer, and returns that as what has gone wrong. */
function away(title = 'The relay does not answer') {
  tell(false);
  return new Refused(0, { title });
}

/** Returns headers; which value it is that none can carry is told. */
function headersOf(sent) {
  const headers = new Headers();
  for (const [name, value] of Object.entries(sent)) {
    try {
      headers.set(name, value);
    } catch {
      throw new Refused(400, { title: `${TYPED[name] ?? name} has a character that cannot be sent in a header` });
    }
  }
  return headers;
}

async function ask(method, path, { body, headers = {}, signal, isStream = false, isLong = false } = {}) {
  const sent = { ...headers };
  if (token) sent.authorization = `Bearer ${token}`;
  if (body !== undefined && !sent['content-type']) {
    sent['content-type'] = 'application/json';
    body = JSON.stringify(body);
  }
  const request = { method, headers: headersOf(sent), body };
  const signals = [signal, isStream ? null : AbortSignal.timeout(isLong ? LONG_TIMEOUT : TIMEOUT)].filter(Boolean);
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { ...request, signal: AbortSignal.any(signals) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw isLong && error.name === 'TimeoutError' ? away('The relay has not answered in time, and may be at it still') : away();
  }
  const problem = response.ok ? null : await response.json().catch(() => ({ title: `The relay answered with status ${response.status}` }));
  // A proxy says so where the relay is away; what the relay itself says has a code.
  if (BY_PROXIES.includes(response.status) && !problem.code) throw away();
  tell(true);
  if (problem) {
    if (response.status === 401) events.dispatchEvent(new Event('unknown'));
    throw new Refused(response.status, problem);
  }
  return response;
}

/** Reads all of an answer: its text, or what else `as` says. */
export async function read(response, as = 'text') {
  try {
    return await response[as]();
  } catch {
    throw away();
  }
}

/** Asks, and returns the JSON of the answer, or null where it has none. */
export async function call(method, path, options) {
  const text = await read(await ask(method, path, options));
  return text ? parse(text) : null;
}
export const get = (path, options) => call('GET', path, options);
export const post = (path, body, options = {}) => call('POST', path, { ...options, body });

/** For what may have much to do, as to delete a topic: its answer is waited for longer. */
export const LONG = { isLong: true };

/** Asks, and returns the answer itself, for who looks at its headers or has no JSON. */
export const raw = ask;

/** Asks for a list, and returns it with where its next page is, and behind what that begins, or null. */
export async function listed(path) {
  const response = await ask('GET', path);
  const next = /<([^>]*)>;\s*rel="?next/.exec(response.headers.get('link') ?? '');
  const at = next && new URL(next[1], response.url);
  return { rows: parse(await read(response)), next: at && at.href, from: at && (at.searchParams.get('after') ?? at.searchParams.get('cursor')) };
}

/**
 * Follows a stream of lines, and hands each over, until `signal` ends it; it throws where the relay refuses or the
 * stream breaks.
 */
export async function follow(path, signal, took) {
  const headers = { accept: 'application/x-ndjson' };
  const response = await ask('GET', path, { headers, signal, isStream: true });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (!signal.aborted) tell(false);
      throw error;
    }
    if (piece.done) return;
    const lines = (rest + piece.value).split('\n');
    rest = lines.pop();
    for (const line of lines.filter(line => line !== '')) took(parse(line));
  }
}

/** The metrics of the node that answers: by name, a list of `{ labels, value }`. */
export async function metrics() {
  const text = await read(await ask('GET', 'metrics'));
  const all = new Map();
  for (const line of text.split('\n')) {
    const found = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, k, v]) => [k, v]));
    if (!all.has(found[1])) all.set(found[1], []);
    all.get(found[1]).push({ labels, value: Number(found[3]) });
  }
  return all;
}
