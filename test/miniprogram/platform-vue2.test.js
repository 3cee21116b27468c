/**
 * The client's tests with another platform: an adapter that answers by Promises of [error, result],
 * as uni-app with Vue 2.
 */
"use strict";
process.env.MP_PLATFORM = "vue2";
require("./login.test.js");
require("./request.test.js");
require("./repeat.test.js");
require("./origins.test.js");
require("./limits.test.js");
require("./files.test.js");
