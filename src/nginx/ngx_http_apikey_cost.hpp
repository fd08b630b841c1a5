// What a request costs: read before its limits are taken, settled when it ends by what its answer said.
// Called by _decision, the filters and the log phase. Never delays or changes an answer.
//   line     of an apikey_cost directive: for the limits of one measure, or for all that no other line is for
//   reserve  what is taken before the answer is known
//   figure   what the answer says the request has cost: in a variable, or as a number in its body
#pragma once

#include <cstdint>
#include <string_view>

#include "apikey/number_finder.hpp"
#include "ngx_http_apikey_ctx.hpp"

namespace apikey::nginx {

inline constexpr std::uint64_t kMaxCost = 1'000'000'000;  // of one request, as written or as a variable says

// A number that is written, or that a variable holds when the request is decided.
struct Amount {
  std::uint64_t number = 1;
  ngx_int_t variable = NGX_ERROR;  // its index; NGX_ERROR: the number counts
};

// An apikey_cost line.
struct CostLine {
  std::string_view measure;        // empty: all limits that no other line is for
  Amount first;                    // the reserve, or where there is none the cost
  ngx_int_t response = NGX_ERROR;  // index of the variable of response=
  NumberPath path;                 // of response=json:
  [[nodiscard]] bool reads_body() const noexcept { return path.count != 0; }
  [[nodiscard]] bool is_settled() const noexcept { return response != NGX_ERROR || reads_body(); }
};

// Reads what the lines of the location say of this request into ctx.costs, in their order. What is no number costs 1.
// RETURNS: one for each line. LIFETIME: the ctx's.
[[nodiscard]] std::span<const MeasuredCost> read_costs(ngx_http_request_t* r, const LocConf& conf,
                                                       RequestCtx& ctx) noexcept;

// Looks for figures in the body that is about to be sent, where a line asks for one: called by the header filter.
void begin_watching(ngx_http_request_t* r, RequestCtx& ctx) noexcept;
// Called for each piece of the body. REQUIRES: ctx.watch is not null.
void watch(RequestCtx& ctx, const ngx_chain_t* in) noexcept;

// Charges or gives back what the answer says, or gives back everything. Called once, when the request has ended.
void settle(ngx_http_request_t* r, RequestCtx& ctx) noexcept;

}  // namespace apikey::nginx
