// The transcript of a session: which utterance is spoken, which words were chosen, and scrolling to them.

const isStill = matchMedia('(prefers-reduced-motion: reduce)');
const SCROLL_KEYS = new Set(['ArrowUp', 'ArrowDown', 'PageUp', 'PageDown', 'Home', 'End']);

export function transcript() {
  const box = document.getElementById('lines');
  const follow = document.getElementById('follow');
  const utterances = [...box.querySelectorAll('.utterance')].map((element) => ({
    element,
    start: Number(element.dataset.start),
    end: Number(element.dataset.end),
  }));
  let current = null;
  let placeMs = null; // of the sound, once there was any
  let isFollowing = true;

  // On a wide screen the transcript scrolls by itself, else the whole page does.
  const scrolls = () => getComputedStyle(box).overflowY === 'auto';

  function reveal(element) {
    const behavior = isStill.matches ? 'auto' : 'smooth';
    const place = element.getBoundingClientRect();
    if (scrolls()) {
      const frame = box.getBoundingClientRect();
      box.scrollTo({ top: box.scrollTop + place.top - frame.top - frame.height / 3, behavior });
    } else {
      window.scrollTo({ top: window.scrollY + place.top - window.innerHeight / 3, behavior });
    }
  }

  const isInSight = () => scrolls() || box.getBoundingClientRect().top < window.innerHeight / 2;

  function setFollowing(following) {
    isFollowing = following;
    follow.hidden = following;
  }

  // The one that began last among those that are not over: where people speak at once it is the newest.
  function spokenAt(ms) {
    let found = null;
    for (const each of utterances) {
      if (each.start > ms) break;
      if (each.end > ms) found = each.element;
    }
    return found;
  }

  // The last one that has begun, where nobody speaks just now.
  function nearest(ms) {
    let found = utterances[0];
    for (const each of utterances) {
      if (each.start > ms) break;
      found = each;
    }
    return found?.element ?? null;
  }

  function unmark() {
    for (const element of box.querySelectorAll('.is-marked, .is-chosen')) {
      element.classList.remove('is-marked', 'is-chosen');
    }
  }

  // Marks an utterance, and the words of an evidence in it.
  function mark(element, evidence) {
    unmark();
    element.classList.add('is-marked');
    for (const words of element.querySelectorAll('mark')) {
      words.classList.toggle('is-chosen', words.dataset.evidence.split(' ').includes(evidence));
    }
    setFollowing(true);
    reveal(element);
  }

  function showTime(ms) {
    placeMs = ms;
    const spoken = spokenAt(ms);
    if (spoken === current) return;
    current?.removeAttribute('aria-current');
    spoken?.setAttribute('aria-current', 'true');
    current = spoken;
    if (spoken && isFollowing && isInSight()) reveal(spoken);
  }

  // Whoever scrolls wants to read elsewhere.
  const leave = () => {
    if (placeMs !== null) setFollowing(false);
  };
  for (const name of ['wheel', 'touchmove']) box.addEventListener(name, leave, { passive: true });
  box.addEventListener('pointerdown', (event) => {
    if (event.target === box) leave(); // its scroll bar
  });
  box.addEventListener('keydown', (event) => {
    if (SCROLL_KEYS.has(event.key)) leave();
  });
  follow.addEventListener('click', () => {
    setFollowing(true);
    const element = current ?? nearest(placeMs);
    if (element) reveal(element);
  });

  return { mark, nearest, showTime };
}
