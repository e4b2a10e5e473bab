// Dark or light: the system's choice until the viewer makes one. Colours are custom properties in tokens.css;
// canvases read them through `palette`, which changes together with the theme.
import { computed, effect, signal } from "@preact/signals";
import { type State, STATES } from "./states.ts";

export type Theme = "dark" | "light";
const KEY = "millrace-theme";

const system = signal<Theme>("light");
const chosen = signal<Theme | null>(null);
export const theme = computed<Theme>(() => chosen.value ?? system.value);

export interface Palette {
  text: string;
  muted: string;
  line: string;
  surface: string;
  raised: string;
  accent: string;
  state: Record<State, string>;
  /** The same colours by State's byte, as 0xAABBGGRR, which is what a Uint32Array over ImageData takes. */
  bytes: Uint32Array;
}

export const palette = signal<Palette | null>(null);

export function startTheme(): void {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  system.value = dark.matches ? "dark" : "light";
  dark.addEventListener("change", () => (system.value = dark.matches ? "dark" : "light"));
  const kept = recall();
  if (kept === "dark" || kept === "light") chosen.value = kept;
  effect(() => {
    document.documentElement.dataset.theme = theme.value;
    palette.value = readPalette();
  });
}

export function toggleTheme(): void {
  chosen.value = theme.value === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, chosen.value);
  } catch {
    // A browser that keeps nothing: the choice holds for this visit.
  }
}

function recall(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const state = Object.fromEntries(STATES.map((name) => [name, read(`state-${name}`)])) as Record<
    State,
    string
  >;
  return {
    text: read("text"),
    muted: read("muted"),
    line: read("line"),
    surface: read("surface"),
    raised: read("raised"),
    accent: read("accent"),
    state,
    bytes: Uint32Array.from(STATES, (name) => packed(state[name])),
  };
}

/** "#rrggbb" as 0xAABBGGRR. */
export function packed(hex: string): number {
  const value = Number.parseInt(hex.slice(1), 16);
  return (0xff000000 | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}
