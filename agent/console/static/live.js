// Captions as they come. Each final is an event; those that the page has already are left out by their id.

import { clock } from './times.js';

const MOST_SHOWN = 500; // utterances; what was said before is on the page of the session
const NEAR_PX = 120; // so far from the bottom one still reads the newest
const NAMELESS = '?';

const find = (id) => document.getElementById(id);
const lines = find('lines');
const newest = find('newest');
const { session, colours, pause } = find('main').dataset;
const people = new Map(); // by identity
for (const item of find('people').children) {
  const { identity, colour, initials } = item.dataset;
  people.set(identity, { identity, name: item.textContent, colour, initials });
}
// No two people of the page have one name.
const identities = new Map([...people.values()].map(({ identity, name }) => [name, identity]));
for (const block of lines.querySelectorAll('.block')) {
  block.dataset.identity = identities.get(block.querySelector('bdi').textContent);
}

// In one line, without control characters and what turns the direction of the text around it.
function clean(text) {
  const plain = text.replace(/[\s\x1c-\x1f\x85]/gu, ' ');
  return plain.replace(/[\p{Cc}\p{Cs}\p{Cn}\u202a-\u202e\u2066-\u2069]/gu, '').replace(/ +/g, ' ').trim();
}

// A name that nobody else on the page has.
function told(name, identity) {
  const shown = clean(name) || clean(identity) || NAMELESS;
  const behind = clean(identity) || NAMELESS;
  let candidate = shown;
  for (let number = 1; identities.has(candidate); number += 1) {
    candidate = number === 1 ? `${shown} (${behind})` : `${shown} (${behind}, ${number})`;
  }
  return candidate;
}

function person({ identity, name }) {
  if (!people.has(identity)) {
    const words = clean(name || identity).split(' ').filter((word) => /^[\p{L}\p{N}]/u.test(word));
    const initials = (words.length > 1 ? [words[0], words.at(-1)] : words).map((word) => [...word][0]);
    const made = {
      identity,
      name: told(name, identity),
      colour: people.size % Number(colours),
      initials: initials.join('').toUpperCase() || NAMELESS,
    };
    people.set(identity, made);
    identities.set(made.name, identity);
  }
  return people.get(identity);
}

function copy(id) {
  return find(id).content.firstElementChild.cloneNode(true);
}

function newBlock({ identity, name, colour, initials }) {
  const made = copy('block');
  made.dataset.identity = identity;
  made.classList.add(`s${colour}`);
  made.querySelector('.face').textContent = initials;
  made.querySelector('bdi').textContent = name;
  return made;
}

// Puts an utterance after another one; null is the beginning.
function place(element, said, before) {
  const who = person(said.speaker);
  const block = before?.parentElement;
  const goesOn = said.start_ms - Number(before?.dataset.end) <= Number(pause);
  if (block && goesOn && block.dataset.identity === who.identity) {
    before.after(element);
    return;
  }
  const made = newBlock(who);
  made.append(element);
  if (!block) {
    lines.prepend(made);
    return;
  }
  block.after(made);
  // Somebody spoke in the midst of what stood together: the rest of it comes after.
  if (before.nextElementSibling) {
    const rest = block.cloneNode(true);
    for (const copied of rest.querySelectorAll('.utterance')) copied.remove();
    while (before.nextElementSibling) rest.append(before.nextElementSibling);
    made.after(rest);
  }
}

// The last utterance that began before, or with, this one. It is nearly always the last of all.
function lastBefore(startMs) {
  const all = lines.querySelectorAll('.utterance');
  for (let place = all.length - 1; place >= 0; place -= 1) {
    if (Number(all[place].dataset.start) <= startMs) return all[place];
  }
  return null;
}

let sinceMs = Number(find('main').dataset.since);

function add(said) {
  if (said.start_ms < sinceMs) return; // left out on this page
  const known = find(`u-${said.id}`);
  if (known) {
    known.querySelector('p').textContent = said.text; // it was corrected
    return;
  }
  const wasNear = isNear();
  const before = lastBefore(said.start_ms);
  const element = copy('utterance');
  element.id = `u-${said.id}`;
  element.dataset.start = said.start_ms;
  element.dataset.end = said.end_ms;
  element.querySelector('.at').textContent = clock(said.start_ms);
  const words = element.querySelector('p');
  words.textContent = said.text;
  if (said.language) words.lang = said.language;
  place(element, said, before);
  lines.querySelector('.is-newest')?.classList.remove('is-newest');
  element.classList.add('is-newest');
  find('nothing').hidden = true;
  while (lines.querySelectorAll('.utterance').length > MOST_SHOWN) {
    const first = lines.querySelector('.utterance');
    sinceMs = Number(first.dataset.start) + 1;
    (first.parentElement.querySelectorAll('.utterance').length > 1 ? first : first.parentElement).remove();
  }
  if (wasNear) toBottom();
  else newest.hidden = false;
}

function isNear() {
  const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
  return scrollHeight - clientHeight - scrollTop < NEAR_PX;
}

function toBottom() {
  newest.hidden = true;
  window.scrollTo({ top: document.documentElement.scrollHeight });
}

function say(kind, words) {
  const badge = document.createElement('span');
  badge.className = `badge ${kind}`;
  badge.textContent = words;
  find('state').replaceChildren(badge);
}

function listen() {
  const source = new EventSource(`/api/v1/sessions/${encodeURIComponent(session)}/events?since=${sinceMs}`);
  source.addEventListener('open', () => say('is-live', 'Live'));
  source.addEventListener('final', (event) => add(JSON.parse(event.data)));
  source.addEventListener('ended', () => {
    source.close();
    say('', 'This session is over');
    const wasNear = isNear();
    find('over').hidden = false;
    if (wasNear) toBottom();
  });
  source.addEventListener('error', () => {
    // A browser connects again by itself, unless the server refuses it.
    if (source.readyState === EventSource.CLOSED) say('is-failed', 'Not connected: load the page again');
    else say('is-working', 'Connecting again');
  });
}

newest.addEventListener('click', toBottom);
addEventListener('scroll', () => {
  if (isNear()) newest.hidden = true;
}, { passive: true });
if (find('over').hidden) {
  toBottom();
  listen();
}
