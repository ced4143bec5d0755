// Users, tokens and roles, and which rule decides.

import { call, get, post, url } from './api.js';
import { ACT, NAME, TEXT, card, confirmed, field, make, put, table, when } from './dom.js';
import { again, button, form, told } from './app.js';

const VERBS = ['publish', 'read', 'work', 'manage', 'admin'];
const lines = text => (text ?? '').split('\n').map(line => line.trim()).filter(line => line !== '');
const rules = list => make('pre', {}, list.join('\n'));

/** A part of the page that the caller may not see says so, and the others are there. What is only away now is asked again with all. */
async function part(title, make_) {
  try {
    return await make_();
  } catch (error) {
    if (error.isForNow) throw error;
    if (error.code !== 'forbidden') return card(title, told(error));
    return card(title, make('p', { class: 'quiet' }, 'Administrators see this (', make('code', {}, error.code), ').'));
  }
}

export async function show(place) {
  put(place, make('h1', {}, 'Access'), explain(),
    ...await Promise.all([part('Users', users), part('Tokens', tokens), part('Roles', roles)]));
}

function explain() {
  return card('Who may do what', form(async ({ verb, topic, principal }, element) => {
    const told = await post('api/v1/access/explain', { verb, topic, principal });
    element.append(make('p', { class: `done ${told.allowed ? 'good' : 'bad'}`, role: 'status' },
      `${told.allowed ? 'Allowed' : 'Denied'} to ${told.principal}: ${told.rule ?? 'no rule says anything, which is no'}`));
  }, make('div', { class: 'row' },
    field('May', 'principal', { placeholder: 'you', spellcheck: 'false' }),
    field('do', 'verb', { options: VERBS }, 'select'),
    field('with', 'topic', { placeholder: 'orders, or keys/flows/a', spellcheck: 'false' }),
    make('button', { class: 'main' }, 'Explain'))));
}

async function users() {
  const all = await get('api/v1/users');
  const put = async ({ name, password, roles, email }) => {
    const body = { ...(password && { password }), ...(roles && { roles: roles.split(/[\s,]+/).filter(Boolean) }), ...(email && { email }) };
    await call('PUT', url`api/v1/users/${name}`, { body });
    again();
  };
  const change = row => button(row.is_active ? 'Lock out' : 'Let in', async () => {
    await call('PUT', url`api/v1/users/${row.name}`, { body: { is_active: !row.is_active } });
    again();
  });
  return card('Users', table([
    ['Name', row => row.name, NAME],
    ['Roles', row => row.roles.join(', '), NAME],
    ['Mail', row => row.email, NAME],
    ['Comes in by', row => [row.has_password && 'password', row.issuer].filter(Boolean).join(', '), NAME],
    ['May come in', row => (row.is_active ? 'yes' : make('span', { class: 'warn' }, 'no'))],
    ['Made', row => when(row.created_at)],
    ['', row => make('div', { class: 'row' }, change(row), button('Delete', async () => {
      if (!await confirmed(`Delete the user ${row.name}, with the tokens that it has made?`, 'Delete it', row.name)) return;
      await call('DELETE', url`api/v1/users/${row.name}`);
      again();
    }, 'danger')), ACT],
  ], all, 'There is none.'), make('details', {}, make('summary', {}, 'Make a user, or change one'), form(put, make('div', { class: 'row' },
    field('Name', 'name', { required: true, spellcheck: 'false', autocomplete: 'off' }),
    field('Password', 'password', { type: 'password', autocomplete: 'new-password', minlength: 8 }),
    field('Roles', 'roles', { placeholder: 'read, write', spellcheck: 'false' }),
    field('Mail', 'email', { type: 'email' }),
    make('button', { class: 'main' }, 'Write it')),
  make('p', { class: 'quiet' }, 'What is empty stays as it is.'))));
}

async function tokens() {
  const all = await get('api/v1/tokens');
  const made = make('div');
  const create = async ({ name, rules: text, days }) => {
    const body = { name, rules: lines(text), ...(days && { expires_in: Math.round(Number(days) * 86_400) }) };
    const token = await post('api/v1/tokens', body);
    made.replaceChildren(make('div', { class: 'done', role: 'status' }, make('p', {}, 'This is shown once:'), make('pre', { class: 'token' }, token.token),
      token.beyond_maker && make('p', { class: 'warn' }, `Gives nothing, as you may not: ${token.beyond_maker.join('; ')}`),
      make('button', { onclick: again }, 'I have it')));
  };
  return card('Tokens', table([
    ['Name', row => row.name, NAME],
    ['Id', row => make('code', {}, row.token_id)],
    ['Rules', row => rules(row.rules), TEXT],
    ['Maker', row => row.maker, NAME],
    ['Made', row => when(row.created_at)],
    ['Ends', row => when(row.expires_at)],
    ['Last used', row => when(row.last_used_at)],
    ['', row => button('Revoke', async () => {
      if (!await confirmed(`Revoke the token ${row.name}, and those that it has made? What is open by it ends.`, 'Revoke it')) return;
      await call('DELETE', url`api/v1/tokens/${row.token_id}`);
      again();
    }, 'danger'), ACT],
  ], all, 'There is none.'), make('details', {}, make('summary', {}, 'Make a token'), form(create,
    make('div', { class: 'row' }, field('Name', 'name', { required: true, spellcheck: 'false' }),
      field('Days until it ends', 'days', { type: 'number', min: 0, step: 'any' })),
    field('Rules, one on each line', 'rules', { required: true, placeholder: 'allow publish,read orders.*', spellcheck: 'false' }, 'textarea'),
    make('button', { class: 'main' }, 'Make it')), made));
}

async function roles() {
  const all = await get('api/v1/roles');
  return card('Roles', table([
    ['Role', row => row.role, NAME],
    ['Rules', row => rules(row.rules), TEXT],
    ['Ready-made', row => (row.is_ready_made ? 'yes' : 'no')],
    ['', row => {
      // One that is ready-made is never gone: it only gets its rules back.
      const [what, question, title] = row.is_ready_made
        ? ['Reset', `Give the role ${row.role} back its ready-made rules? What it was given in their place is gone.`, 'Reset it']
        : ['Delete', `Delete the role ${row.role}?`, 'Delete it'];
      return button(what, async () => {
        if (!await confirmed(question, title)) return;
        await call('DELETE', url`api/v1/roles/${row.role}`);
        again();
      }, 'danger');
    }, ACT],
  ], all, 'There is none.'), make('details', {}, make('summary', {}, 'Write a role'), form(async ({ role, rules: text }) => {
    await call('PUT', url`api/v1/roles/${role}`, { body: { rules: lines(text) } });
    again();
  }, field('Name', 'role', { required: true, spellcheck: 'false' }),
  field('Rules, one on each line', 'rules', { placeholder: 'allow publish,read orders.*', spellcheck: 'false' }, 'textarea'),
  make('button', { class: 'main' }, 'Write it'))));
}
