// Wall times are written in UTC by the server; here they become those of the person who reads them.

const format = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });

export function localise(root) {
  for (const element of root.querySelectorAll('time[data-local]')) {
    element.title = element.textContent;
    element.textContent = format.format(new Date(element.dateTime));
  }
}
localise(document);

// A session time in milliseconds as 1:02 or 1:00:02, as the server writes it.
export function clock(ms) {
  const seconds = Math.floor(Math.max(ms, 0) / 1000);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  if (!parts[0]) parts.shift();
  return parts.map((part, place) => (place ? String(part).padStart(2, '0') : part)).join(':');
}
