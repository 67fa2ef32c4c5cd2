// Which sentences of the model have been in view for a moment: the others are listed before signing.

const MOMENT_MS = 500;

export class Unread {
  #seen = new Set();
  #since = new Map();
  #watched = new Set();

  constructor(root, changed) {
    this.root = root;
    this.changed = changed;
    this.observer = new IntersectionObserver((entries) => this.#look(entries), { threshold: 0.6 });
    document.addEventListener("visibilitychange", () => this.observe());
  }

  /** Look at what is drawn now. What stays is not looked at anew: its moment goes on while somebody types. */
  observe() {
    const drawn = document.hidden ? [] : [...this.root.querySelectorAll("[data-key]")];
    const wanted = new Set(drawn.filter((element) => !this.#seen.has(element.dataset.key)));
    for (const element of this.#watched) if (!wanted.has(element)) this.observer.unobserve(element);
    for (const element of wanted) if (!this.#watched.has(element)) this.observer.observe(element);
    this.#watched = wanted;
  }

  #look(entries) {
    for (const { target, isIntersecting } of entries) {
      const { key } = target.dataset;
      clearTimeout(this.#since.get(key));
      this.#since.delete(key);
      if (isIntersecting) this.#since.set(key, setTimeout(() => this.#saw(key), MOMENT_MS));
    }
  }

  #saw(key) {
    this.#seen.add(key);
    this.#since.delete(key);
    this.changed();
  }

  /** Of these pieces the ones that are the model's and were not in view yet. */
  of(sections, pieces) {
    return sections.flatMap(({ name, pieces: all }) =>
      all
        .filter((one) => one.text.trim() && pieces.origin(one.key, one.text) === "model" && !this.#seen.has(one.key))
        .map((one) => ({ section: name, key: one.key, text: one.text })),
    );
  }
}
