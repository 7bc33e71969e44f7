// The player at the bottom of a session: buttons, slider and keys around one <audio>.

import { clock } from './times.js';

const JUMP_S = 5;
const TYPED_INTO = 'input:not([type=range]), textarea, select, [contenteditable]';
const PRESSED_BY_SPACE = `${TYPED_INTO}, button, summary`;

// Gives an object that seeks and plays, or null where there is no recording. `onTime` is called with the place
// in milliseconds, often while it plays and once after each jump.
export function player(onTime) {
  const audio = document.getElementById('audio');
  if (!audio) return null;
  const find = (id) => document.getElementById(id);
  const bar = audio.closest('.player');
  const [play, seek, now, rate] = ['play', 'seek', 'now', 'rate'].map(find);

  // Without this script the browser's own controls are there.
  audio.controls = false;
  audio.hidden = true;
  find('controls').hidden = false;

  const start = () => audio.play().catch(() => {}); // a browser may want a click first: the button is there
  const toggle = () => (audio.paused ? start() : audio.pause());
  const stand = (ms) => {
    // Before its length is known the browser keeps the place for later.
    const end = Number.isFinite(audio.duration) ? audio.duration : Infinity;
    audio.currentTime = Math.min(Math.max(ms / 1000, 0), end);
    show();
  };
  const jump = (seconds) => stand((audio.currentTime + seconds) * 1000);

  function show() {
    const ms = audio.currentTime * 1000;
    seek.value = ms;
    seek.setAttribute('aria-valuetext', clock(ms));
    now.textContent = clock(ms);
    onTime(ms);
  }

  function showState() {
    bar.classList.toggle('is-playing', !audio.paused);
    play.setAttribute('aria-label', audio.paused ? 'Play' : 'Pause');
    if (!audio.paused) requestAnimationFrame(tick);
  }

  // Twenty times as often as `timeupdate`: the transcript follows words, not quarters of a second.
  function tick() {
    if (audio.paused) return;
    show();
    requestAnimationFrame(tick);
  }

  play.addEventListener('click', toggle);
  find('back').addEventListener('click', () => jump(-JUMP_S));
  find('ahead').addEventListener('click', () => jump(JUMP_S));
  seek.addEventListener('input', () => stand(Number(seek.value)));
  rate.addEventListener('change', () => {
    audio.playbackRate = Number(rate.value);
  });
  for (const name of ['play', 'pause', 'ended']) audio.addEventListener(name, showState);
  for (const name of ['timeupdate', 'seeked']) audio.addEventListener(name, show);
  audio.addEventListener('error', () => {
    find('controls').hidden = true;
    find('unplayable').hidden = false;
  });

  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const at = event.target;
    if (at.matches(TYPED_INTO) || (event.key === ' ' && at.matches(PRESSED_BY_SPACE))) return;
    const acts = {
      ' ': toggle,
      k: toggle,
      j: () => jump(-JUMP_S),
      l: () => jump(JUMP_S),
      ArrowLeft: () => jump(-JUMP_S),
      ArrowRight: () => jump(JUMP_S),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault(); // a page would scroll, a slider would move by a step
    act();
  });

  return { stand, start };
}
