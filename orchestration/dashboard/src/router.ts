// The address is the state: every page and filter can be linked to, and the browser's Back works.
import { computed, signal } from "@preact/signals";

export interface Address {
  path: string;
  query: URLSearchParams;
}

function read(): Address {
  return { path: location.pathname.replace(/\/+$/, "") || "/", query: new URLSearchParams(location.search) };
}

export const address = signal<Address>(read());
export const path = computed(() => address.value.path);

/** Follow the address bar, and take clicks on links of this site without loading the page again. */
export function startRouter(): void {
  addEventListener("popstate", () => (address.value = read()));
  document.addEventListener("click", (event) => {
    const link = (event.target as Element | null)?.closest?.("a");
    if (!link || !takes(event, link)) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}

function takes(event: MouseEvent, link: HTMLAnchorElement): boolean {
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  const here = link.origin === location.origin && !link.target && !link.hasAttribute("download");
  return plain && here && !event.defaultPrevented && !link.pathname.startsWith("/api/");
}

export function go(to: string, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", to);
  else {
    history.pushState(null, "", to);
    scrollTo(0, 0);
  }
  address.value = read();
}

/** Change parts of the query; an empty value takes the part away. */
export function setQuery(changes: Record<string, string | string[] | null>): void {
  const query = new URLSearchParams(address.value.query);
  for (const [name, value] of Object.entries(changes)) {
    query.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one) query.append(name, one);
  }
  const text = query.toString();
  go(address.value.path + (text && `?${text}`), { replace: true });
}

/**
 * Compare a path with a pattern such as "/runs/:id/nodes/:node".
 *
 * Returns the decoded parts by name, or null where the path is another one.
 */
export function match(pattern: string, actual: string): Record<string, string> | null {
  const wanted = pattern.split("/");
  const given = actual.split("/");
  if (wanted.length !== given.length) return null;
  const parts: Record<string, string> = {};
  for (const [i, want] of wanted.entries()) {
    const part = given[i] ?? "";
    if (want.startsWith(":")) {
      if (!part) return null;
      parts[want.slice(1)] = decode(part);
    } else if (want !== part) return null;
  }
  return parts;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a stray % that somebody typed
  }
}

/** A path from its parts, each encoded: `at("runs", id)`. */
export function at(...parts: (string | number)[]): string {
  return "/" + parts.map((part) => encodeURIComponent(part)).join("/");
}
