import { useEffect, useRef } from "preact/hooks";
import { address, setQuery } from "../router.ts";

const PAUSE_MS = 300;

/**
 * A field for the address's `search`, which follows when the typing pauses, and at once on Enter.
 *
 * The browser keeps what is typed: a page that is drawn again by live news must not take letters away.
 */
export function SearchField({ label, placeholder }: { label: string; placeholder: string }) {
  const field = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const words = address.value.query.get("search") ?? "";
  const told = useRef(words);
  useEffect(() => {
    if (words === told.current || !field.current) return;
    told.current = field.current.value = words; // the address was changed by something else
  }, [words]);
  useEffect(() => () => clearTimeout(timer.current), []);
  function tell(text: string): void {
    clearTimeout(timer.current);
    told.current = text;
    setQuery({ search: text });
  }
  return (
    <input
      ref={field}
      type="search"
      placeholder={placeholder}
      aria-label={label}
      defaultValue={words}
      onInput={(event) => {
        const text = event.currentTarget.value;
        clearTimeout(timer.current);
        timer.current = setTimeout(() => tell(text), PAUSE_MS);
      }}
      onChange={(event) => tell(event.currentTarget.value)}
    />
  );
}
