// Text composed in pool memory. The buffer doubles; what it leaves behind goes with the request.
// Called wherever an answer is put together. Never holds a presented key.
#include "ngx_http_apikey_text.hpp"

#include <algorithm>

namespace apikey::nginx {
namespace {

constexpr std::size_t kFirstCapacity = 256;

bool is_control(char c) noexcept { return static_cast<u_char>(c) < 0x20 || c == 0x7f; }

}  // namespace

bool Text::reserve(std::size_t more) noexcept {
  if (failed_ || capacity_ - size_ >= more) {
    return !failed_;
  }
  const std::size_t capacity = std::max({2 * capacity_, size_ + more, kFirstCapacity});
  auto* data = static_cast<u_char*>(ngx_pnalloc(pool_, capacity));
  if (data == nullptr) {
    failed_ = true;
    return false;
  }
  if (size_ > 0) {
    ngx_memcpy(data, data_, size_);
  }
  data_ = data;
  capacity_ = capacity;
  return true;
}

void Text::add(std::string_view text) noexcept {
  if (!text.empty() && reserve(text.size())) {
    ngx_memcpy(data_ + size_, text.data(), text.size());
    size_ += text.size();
  }
}

void Text::add_number(std::int64_t number) noexcept {
  if (reserve(NGX_INT64_LEN)) {
    size_ = static_cast<std::size_t>(ngx_sprintf(data_ + size_, "%L", number) - data_);
  }
}

void Text::add_json(std::string_view text) noexcept {
  const ngx_str_t raw = to_ngx_str(text);
  const std::size_t most = text.size() + ngx_escape_json(nullptr, raw.data, raw.len) + 2;
  if (!reserve(most)) {
    return;
  }
  add("\"");
  ngx_escape_json(data_ + size_, raw.data, raw.len);
  size_ += most - 2;
  add("\"");
}

void Text::add_quoted(std::string_view text) noexcept {
  add("\"");
  for (const char c : text) {
    const char shown = is_control(c) ? ' ' : c;
    if (c == '"' || c == '\\') {
      add("\\");
    }
    add({&shown, 1});
  }
  add("\"");
}

ngx_str_t number_text(ngx_pool_t* pool, std::int64_t number) noexcept {
  Text text(pool);
  text.add_number(number);
  return text.str();
}

ngx_str_t header_safe(ngx_pool_t* pool, std::string_view text) noexcept {
  if (std::none_of(text.begin(), text.end(), is_control)) {
    return to_ngx_str(text);
  }
  const ngx_str_t copy = copy_to_pool(pool, text);
  for (std::size_t i = 0; i < copy.len; ++i) {
    if (is_control(static_cast<char>(copy.data[i]))) {
      copy.data[i] = ' ';
    }
  }
  return copy;
}

}  // namespace apikey::nginx
