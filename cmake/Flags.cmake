# Warnings, hardening and sanitizers for everything that is ours.
add_library(apikey_flags INTERFACE)
target_compile_options(apikey_flags INTERFACE -Wall -Wextra -Wpedantic -Wconversion)
target_compile_options(apikey_flags INTERFACE
  -fstack-protector-strong -fstack-clash-protection
  $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE> $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
target_link_options(apikey_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # -mcx16: the 16-byte compare-and-swap of the bucket table (every x86-64 since 2006).
  target_compile_options(apikey_flags INTERFACE -fcf-protection -mcx16)
endif()
if(APIKEY_SANITIZE)
  target_compile_options(apikey_flags INTERFACE -fsanitize=${APIKEY_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(apikey_flags INTERFACE -fsanitize=${APIKEY_SANITIZE})
endif()

# The core and the module: no exceptions, no RTTI, nothing visible but what exports.map names.
add_library(apikey_module_flags INTERFACE)
target_link_libraries(apikey_module_flags INTERFACE apikey_flags)
target_compile_options(apikey_module_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions> $<$<COMPILE_LANGUAGE:CXX>:-fno-rtti> -fvisibility=hidden
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-gnu-unique>)
