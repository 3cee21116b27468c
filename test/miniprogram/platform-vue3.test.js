/**
 * The client's tests with another platform: an adapter that answers by Promises, as uni-app with
 * Vue 3.
 */
"use strict";
process.env.MP_PLATFORM = "vue3";
require("./login.test.js");
require("./request.test.js");
require("./repeat.test.js");
require("./origins.test.js");
require("./limits.test.js");
require("./files.test.js");
