// The page of a session: a click on evidence plays it, and the transcript follows the sound.

import { player } from './player.js';
import { transcript } from './transcript.js';

const POLL_MS = 3_000;
const MOST_POLL_MS = 30_000; // where the server does not answer
const ANSWER_MS = 10_000;

const text = transcript();
const sound = player((ms) => text.showTime(ms));
const main = document.getElementById('main');

function chooseEvidence(link) {
  for (const other of document.querySelectorAll('.evidence[aria-current], .is-shown')) {
    other.removeAttribute('aria-current');
    other.classList.remove('is-shown');
  }
  link.setAttribute('aria-current', 'true');
  link.closest('li').classList.add('is-shown');
  const element = document.getElementById(`u-${link.dataset.utterance}`);
  if (element) text.mark(element, link.dataset.evidence);
}

// Stands at a time, without playing: a page must not speak by itself.
function standAt(ms) {
  sound?.stand(ms);
  const element = text.nearest(ms);
  if (element) text.mark(element, '');
}

function goToHash() {
  const time = /^#t=(\d+(?:\.\d+)?)$/.exec(location.hash);
  const evidence = /^#e-(\d+-\d+)$/.exec(location.hash);
  if (time) {
    standAt(Number(time[1]) * 1000);
  } else if (evidence) {
    const link = document.querySelector(`.evidence[data-evidence="${evidence[1]}"]`);
    if (!link) return;
    sound?.stand(Number(link.dataset.start));
    chooseEvidence(link);
  }
}

document.addEventListener('click', (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const link = event.target.closest('a.evidence, a.at');
  if (!link) return;
  event.preventDefault();
  const row = link.closest('.utterance');
  const ms = Number((row ?? link).dataset.start);
  if (row) text.mark(row, '');
  else chooseEvidence(link);
  history.replaceState(null, '', `#t=${ms / 1000}`);
  sound?.stand(ms);
  sound?.start();
});
addEventListener('hashchange', goToHash);
goToHash();

// --- An analysis that is being made ---------------------------------------------------------------------------------

const STEPS = JSON.parse(document.getElementById('steps')?.textContent ?? '{}');

async function poll(waitMs) {
  let nextMs = POLL_MS;
  try {
    const answer = await fetch(`/api/v1/sessions/${encodeURIComponent(main.dataset.session)}/analysis`, {
      headers: { accept: 'application/json' },
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    if (answer.ok) {
      const { status, step } = await answer.json();
      if (status === 'done' || status === 'failed') {
        location.reload();
        return;
      }
      document.getElementById('step').textContent = STEPS[step] ?? step;
    } else if (answer.status === 401) {
      location.reload(); // which leads to the sign-in page
      return;
    } else if (answer.status !== 404) {
      nextMs = Math.min(waitMs * 2, MOST_POLL_MS);
    }
  } catch {
    nextMs = Math.min(waitMs * 2, MOST_POLL_MS);
  }
  setTimeout(poll, nextMs, nextMs);
}

if (document.getElementById('progress')) setTimeout(poll, POLL_MS, POLL_MS);
