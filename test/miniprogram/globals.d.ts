/** The platforms that common.js looks for beside wx. */
declare const uni: any;
declare const Taro: any;
