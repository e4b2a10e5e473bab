import { render } from "preact";
import { App } from "./app.tsx";
import { startHealth } from "./health.ts";
import { startKeys } from "./keys.tsx";
import { startRouter } from "./router.ts";
import { startTheme } from "./theme.ts";
import { startClock } from "./time.ts";

startTheme();
startRouter();
startClock();
startKeys();
startHealth();
const root = document.getElementById("app");
if (root) render(<App />, root);
