// Which sentences of the model have been in view for a moment: the others are listed before signing.

const MOMENT_MS = 500;

export class Unread {
  #seen = new Set();
  #since = new Map();

  constructor(root, changed) {
    this.root = root;
    this.changed = changed;
    this.observer = new IntersectionObserver((entries) => this.#look(entries), { threshold: 0.6 });
    document.addEventListener("visibilitychange", () => this.observe());
  }

  /** Look again at what is drawn. */
  observe() {
    this.observer.disconnect();
    if (document.hidden) return;
    for (const element of this.root.querySelectorAll("[data-key]")) {
      if (!this.#seen.has(element.dataset.key)) this.observer.observe(element);
    }
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
