// The bridge to nginx: the only place that includes its headers, and the few conversions everybody needs.
// Included by every file of the adapter, by nothing else.
#pragma once

extern "C" {
#include <ngx_channel.h>
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>
}

#include <bit>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>

extern ngx_module_t ngx_http_apikey_module;

namespace apikey::nginx {

inline std::string_view view(const ngx_str_t& s) noexcept { return {reinterpret_cast<const char*>(s.data), s.len}; }

// The text is not copied. nginx never writes through it.
inline ngx_str_t to_ngx_str(std::string_view s) noexcept {
  return {s.size(), reinterpret_cast<u_char*>(const_cast<char*>(s.data()))};
}

// nginx counts text in u_char.
inline const char* text_of(const u_char* text) noexcept { return reinterpret_cast<const char*>(text); }

// nginx gives the getter of a prefix variable the address of its name as a number.
inline const ngx_str_t* name_of_variable(uintptr_t data) noexcept { return std::bit_cast<const ngx_str_t*>(data); }

// For offsets nginx keeps in tables: the member that stands there.
inline char* byte_at(void* object, std::size_t offset) noexcept { return static_cast<char*>(object) + offset; }

inline char* conf_error() noexcept { return static_cast<char*>(NGX_CONF_ERROR); }

// nginx adds the directive's name and place: `"apikey" directive is duplicate in …`.
inline char* duplicate() noexcept {
  static char text[] = "is duplicate";
  return text;
}

// What follows the name of the directive that is being read. REQUIRES: it has at least one argument.
inline std::span<ngx_str_t> arguments(ngx_conf_t* cf) noexcept {
  return std::span(static_cast<ngx_str_t*>(cf->args->elts), cf->args->nelts).subspan(1);
}

// An array of this configuration level that no directive has made yet.
inline ngx_array_t* unset_array() noexcept { return static_cast<ngx_array_t*>(NGX_CONF_UNSET_PTR); }

// What an array holds; nothing for null.
template <typename T>
std::span<T> elements(const ngx_array_t& array) noexcept {
  return {static_cast<T*>(array.elts), array.nelts};
}
template <typename T>
std::span<T> elements(const ngx_array_t* array) noexcept {
  return array == nullptr ? std::span<T>() : elements<T>(*array);
}
template <typename T>
std::span<T> elements(const ngx_list_part_t* part) noexcept {
  return {static_cast<T*>(part->elts), part->nelts};
}

// RETURNS: false without memory.
template <typename T>
bool init_array(ngx_array_t& array, ngx_pool_t* pool) noexcept {
  // NOLINTNEXTLINE(bugprone-sizeof-expression): T may well be a pointer.
  return ngx_array_init(&array, pool, 4, sizeof(T)) == NGX_OK;
}

// A value-initialised element at the end of the array, or null.
template <typename T>
T* push_to(ngx_array_t* array) noexcept {
  static_assert(std::is_trivially_destructible_v<T>);
  void* place = ngx_array_push(array);
  return place == nullptr ? nullptr : ::new (place) T{};
}

// A copy in pool memory; data is null when there is no memory left (or the text is empty).
inline ngx_str_t copy_to_pool(ngx_pool_t* pool, std::string_view s) noexcept {
  ngx_str_t copy{0, nullptr};
  if (s.empty()) {
    return copy;
  }
  copy.data = static_cast<u_char*>(ngx_pnalloc(pool, s.size()));
  if (copy.data != nullptr) {
    ngx_memcpy(copy.data, s.data(), s.size());
    copy.len = s.size();
  }
  return copy;
}

// A value-initialised object in pool memory, or null. The pool runs no destructors.
template <typename T>
T* pool_new(ngx_pool_t* pool) noexcept {
  static_assert(std::is_trivially_destructible_v<T>);
  void* memory = ngx_pmemalign(pool, sizeof(T), alignof(T) < 16 ? 16 : alignof(T));
  return memory == nullptr ? nullptr : ::new (memory) T{};
}

}  // namespace apikey::nginx
