// The list of sessions as it is now: what changes comes by itself, and the focus stays with a link that is still there.

import { localise } from './times.js';

const POLL_MS = 5_000;
const MOST_POLL_MS = 60_000; // where the server does not answer
const ANSWER_MS = 10_000;

async function look() {
  const answer = await fetch(location.href, { signal: AbortSignal.timeout(ANSWER_MS) });
  if (answer.redirected) {
    location.reload(); // which leads to the sign-in page
    return;
  }
  if (!answer.ok) throw new Error(answer.statusText);
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  const [fresh, main] = [page.getElementById('main'), document.getElementById('main')];
  localise(fresh);
  if (fresh.innerHTML === main.innerHTML) return;
  const focused = main.contains(document.activeElement) && document.activeElement.getAttribute('href');
  main.replaceChildren(...fresh.childNodes);
  if (!focused) return;
  // A session that is over by now has another page.
  const over = focused.replace(/\/live$/, '');
  [...main.querySelectorAll('a')].find((link) => [over, `${over}/live`].includes(link.getAttribute('href')))?.focus();
}

async function poll(waitMs) {
  let nextMs = POLL_MS;
  try {
    if (!document.hidden) await look();
  } catch {
    nextMs = Math.min(waitMs * 2, MOST_POLL_MS);
  }
  setTimeout(poll, nextMs, nextMs);
}

setTimeout(poll, POLL_MS, POLL_MS);
