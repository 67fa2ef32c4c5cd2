// Keeps a session awake while its person types or moves, and leaves the page when nobody does: the server locks the
// session after the same time, this only sees to it that nothing stays on the screen.
const idle = Number(document.querySelector('meta[name="inlay-idle"]')?.content ?? 0) * 1000;
const noted = Math.min(60_000, idle / 4);
let active = Date.now();
let told = Date.now();

function lock() {
  const back = location.pathname + location.search;
  location.replace(`/login?next=${encodeURIComponent(back)}&locked=1`);
}

async function tell() {
  told = Date.now();
  try {
    const answer = await fetch("/api/v1/session", { credentials: "same-origin" });
    if (answer.status === 401) lock();
  } catch {
    // A network that is away for a moment locks nobody out.
  }
}

function act() {
  active = Date.now();
  if (active - told > noted) tell();
}

if (idle > 0) {
  for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) {
    addEventListener(kind, act, { passive: true });
  }
  setInterval(() => { if (Date.now() - active >= idle) lock(); }, 5_000);
}
