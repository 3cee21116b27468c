import { defineConfig } from "vite";
import uniPlugin from "@dcloudio/vite-plugin-uni";

const uni = uniPlugin.default || uniPlugin; // the plugin is CommonJS
export default defineConfig({ plugins: [uni()] });
