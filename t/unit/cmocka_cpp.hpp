// cmocka for C++: its headers in the order they need, its macros that clash with the standard library undone.
// Include last. A failed assertion longjmps: do not hold an object whose destructor matters across one.
#pragma once

// clang-format off
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
extern "C" {
#include <cmocka.h>
}
// clang-format on
#undef fail
#undef skip
#undef mock
