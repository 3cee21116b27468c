/**
 * The client's tests with another platform: Taro: a global that calls back and returns Promises.
 */
"use strict";
process.env.MP_PLATFORM = "taro";
require("./login.test.js");
require("./request.test.js");
require("./repeat.test.js");
require("./origins.test.js");
require("./limits.test.js");
require("./files.test.js");
