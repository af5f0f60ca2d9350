/* Character classes of RFC 9110 and RFC 3986, shared by the files of this folder. */
#pragma once

#include <stdbool.h>

/* tchar of RFC 9110 5.6.2 */
bool http_is_tchar(char c);
/* A character that a request target may hold as it is; '%' is one of them. */
bool http_is_target_char(char c);
/* unreserved of RFC 3986 2.3 */
bool http_is_unreserved(char c);
/* A control character other than tab: nothing of HTTP's text may hold it. */
bool http_is_control(char c);

/* 0..15, or -1 for what is no hexadecimal digit. */
int http_hex_digit(char c);
