// Bytes as people can look at them: as text where they are that, as numbers, and as a file. It must not know where they are from.

import { bytes as sized, make } from './dom.js';

/** Bytes that are shown as numbers. */
const SHOWN_MAX = 512;

/** The bytes as text, or null where they are none in UTF-8. A mark of the byte order at the beginning is a part of it. */
export function textIn(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Bytes as numbers, sixteen in a line, with what they are in ASCII. */
export function inHex(bytes) {
  const lines = [];
  for (let from = 0; from < Math.min(bytes.length, SHOWN_MAX); from += 16) {
    const row = [...bytes.subarray(from, Math.min(from + 16, SHOWN_MAX))];
    const signs = row.map(byte => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
    lines.push(`${from.toString(16).padStart(6, '0')}  ${row.map(byte => byte.toString(16).padStart(2, '0')).join(' ').padEnd(47)}  ${signs}`);
  }
  if (bytes.length > SHOWN_MAX) lines.push(`and ${sized(bytes.length - SHOWN_MAX)} more`);
  return lines.join('\n');
}

/** Hands the bytes out as a file, until `signal` ends it. */
export function saved(bytes, name, signal) {
  const href = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
  signal.addEventListener('abort', () => URL.revokeObjectURL(href));
  return make('a', { href, download: name }, `Download (${sized(bytes.length)})`);
}
