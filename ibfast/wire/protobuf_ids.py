"""Which messages are protobuf: since which server version, and by which name.

Data only.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

from enum import IntEnum

from ibfast.wire.ids import Incoming, Outgoing, ServerVersion

__all__ = ["INCOMING_MESSAGES", "INCOMING_PROTOBUF_SINCE", "OUTGOING_PROTOBUF_SINCE", "PROTOBUF_OFFSET"]

PROTOBUF_OFFSET = 200
"""Added to the id of a message whose body is protobuf."""

INCOMING_MESSAGES: dict[int, str] = {
    Incoming.ORDER_STATUS: "OrderStatus",
    Incoming.ERR_MSG: "ErrorMessage",
    Incoming.OPEN_ORDER: "OpenOrder",
    Incoming.EXECUTION_DATA: "ExecutionDetails",
    Incoming.OPEN_ORDER_END: "OpenOrdersEnd",
    Incoming.EXECUTION_DATA_END: "ExecutionDetailsEnd",
    Incoming.COMPLETED_ORDER: "CompletedOrder",
    Incoming.COMPLETED_ORDERS_END: "CompletedOrdersEnd",
    Incoming.ORDER_BOUND: "OrderBound",
    Incoming.CONTRACT_DATA: "ContractData",
    Incoming.BOND_CONTRACT_DATA: "ContractData",
    Incoming.CONTRACT_DATA_END: "ContractDataEnd",
    Incoming.TICK_PRICE: "TickPrice",
    Incoming.TICK_SIZE: "TickSize",
    Incoming.TICK_OPTION_COMPUTATION: "TickOptionComputation",
    Incoming.TICK_GENERIC: "TickGeneric",
    Incoming.TICK_STRING: "TickString",
    Incoming.TICK_SNAPSHOT_END: "TickSnapshotEnd",
    Incoming.MARKET_DEPTH: "MarketDepth",
    Incoming.MARKET_DEPTH_L2: "MarketDepthL2",
    Incoming.MARKET_DATA_TYPE: "MarketDataType",
    Incoming.TICK_REQ_PARAMS: "TickReqParams",
    Incoming.ACCT_VALUE: "AccountValue",
    Incoming.PORTFOLIO_VALUE: "PortfolioValue",
    Incoming.ACCT_UPDATE_TIME: "AccountUpdateTime",
    Incoming.ACCT_DOWNLOAD_END: "AccountDataEnd",
    Incoming.MANAGED_ACCTS: "ManagedAccounts",
    Incoming.POSITION_DATA: "Position",
    Incoming.POSITION_END: "PositionEnd",
    Incoming.ACCOUNT_SUMMARY: "AccountSummary",
    Incoming.ACCOUNT_SUMMARY_END: "AccountSummaryEnd",
    Incoming.POSITION_MULTI: "PositionMulti",
    Incoming.POSITION_MULTI_END: "PositionMultiEnd",
    Incoming.ACCOUNT_UPDATE_MULTI: "AccountUpdateMulti",
    Incoming.ACCOUNT_UPDATE_MULTI_END: "AccountUpdateMultiEnd",
    Incoming.HISTORICAL_DATA: "HistoricalData",
    Incoming.HISTORICAL_DATA_UPDATE: "HistoricalDataUpdate",
    Incoming.HISTORICAL_DATA_END: "HistoricalDataEnd",
    Incoming.REAL_TIME_BARS: "RealTimeBarTick",
    Incoming.HEAD_TIMESTAMP: "HeadTimestamp",
    Incoming.HISTOGRAM_DATA: "HistogramData",
    Incoming.HISTORICAL_TICKS: "HistoricalTicks",
    Incoming.HISTORICAL_TICKS_BID_ASK: "HistoricalTicksBidAsk",
    Incoming.HISTORICAL_TICKS_LAST: "HistoricalTicksLast",
    Incoming.TICK_BY_TICK: "TickByTickData",
    Incoming.NEWS_BULLETINS: "NewsBulletin",
    Incoming.NEWS_ARTICLE: "NewsArticle",
    Incoming.NEWS_PROVIDERS: "NewsProviders",
    Incoming.HISTORICAL_NEWS: "HistoricalNews",
    Incoming.HISTORICAL_NEWS_END: "HistoricalNewsEnd",
    Incoming.WSH_META_DATA: "WshMetaData",
    Incoming.WSH_EVENT_DATA: "WshEventData",
    Incoming.TICK_NEWS: "TickNews",
    Incoming.SCANNER_PARAMETERS: "ScannerParameters",
    Incoming.SCANNER_DATA: "ScannerData",
    Incoming.PNL: "PnL",
    Incoming.PNL_SINGLE: "PnLSingle",
    Incoming.RECEIVE_FA: "ReceiveFA",
    Incoming.REPLACE_FA_END: "ReplaceFAEnd",
    Incoming.COMMISSION_AND_FEES_REPORT: "CommissionAndFeesReport",
    Incoming.HISTORICAL_SCHEDULE: "HistoricalSchedule",
    Incoming.REROUTE_MKT_DATA_REQ: "RerouteMarketDataRequest",
    Incoming.REROUTE_MKT_DEPTH_REQ: "RerouteMarketDepthRequest",
    Incoming.SECURITY_DEFINITION_OPTION_PARAMETER: "SecDefOptParameter",
    Incoming.SECURITY_DEFINITION_OPTION_PARAMETER_END: "SecDefOptParameterEnd",
    Incoming.SOFT_DOLLAR_TIERS: "SoftDollarTiers",
    Incoming.FAMILY_CODES: "FamilyCodes",
    Incoming.SYMBOL_SAMPLES: "SymbolSamples",
    Incoming.SMART_COMPONENTS: "SmartComponents",
    Incoming.MARKET_RULE: "MarketRule",
    Incoming.USER_INFO: "UserInfo",
    Incoming.NEXT_VALID_ID: "NextValidId",
    Incoming.CURRENT_TIME: "CurrentTime",
    Incoming.CURRENT_TIME_IN_MILLIS: "CurrentTimeInMillis",
    Incoming.VERIFY_MESSAGE_API: "VerifyMessageApi",
    Incoming.VERIFY_COMPLETED: "VerifyCompleted",
    Incoming.DISPLAY_GROUP_LIST: "DisplayGroupList",
    Incoming.DISPLAY_GROUP_UPDATED: "DisplayGroupUpdated",
    Incoming.MKT_DEPTH_EXCHANGES: "MarketDepthExchanges",
    Incoming.CONFIG_RESPONSE: "ConfigResponse",
    Incoming.UPDATE_CONFIG_RESPONSE: "UpdateConfigResponse",
}
"""The protobuf message of each id that a gateway sends in that form."""


def _versions(ids: type[IntEnum], families: dict[ServerVersion, str]) -> dict[int, ServerVersion]:
    return {ids[name]: version for version, names in families.items() for name in names.split()}


INCOMING_PROTOBUF_SINCE = _versions(
    Incoming,
    {
        ServerVersion.PROTOBUF_EXECUTIONS: "ERR_MSG EXECUTION_DATA EXECUTION_DATA_END",
        ServerVersion.PROTOBUF_ORDERS: "ORDER_STATUS OPEN_ORDER OPEN_ORDER_END",
        ServerVersion.PROTOBUF_COMPLETED_ORDERS: "COMPLETED_ORDER COMPLETED_ORDERS_END ORDER_BOUND",
        ServerVersion.PROTOBUF_CONTRACTS: "CONTRACT_DATA BOND_CONTRACT_DATA CONTRACT_DATA_END",
        ServerVersion.PROTOBUF_MARKET_DATA: (
            "TICK_PRICE TICK_SIZE MARKET_DEPTH MARKET_DEPTH_L2 TICK_OPTION_COMPUTATION TICK_GENERIC TICK_STRING "
            "TICK_SNAPSHOT_END MARKET_DATA_TYPE TICK_REQ_PARAMS"
        ),
        ServerVersion.PROTOBUF_ACCOUNTS: (
            "ACCT_VALUE PORTFOLIO_VALUE ACCT_UPDATE_TIME ACCT_DOWNLOAD_END MANAGED_ACCTS POSITION_DATA "
            "POSITION_END ACCOUNT_SUMMARY ACCOUNT_SUMMARY_END POSITION_MULTI POSITION_MULTI_END "
            "ACCOUNT_UPDATE_MULTI ACCOUNT_UPDATE_MULTI_END"
        ),
        ServerVersion.PROTOBUF_HISTORICAL: (
            "HISTORICAL_DATA HISTORICAL_DATA_UPDATE HISTORICAL_DATA_END REAL_TIME_BARS HEAD_TIMESTAMP "
            "HISTOGRAM_DATA HISTORICAL_TICKS HISTORICAL_TICKS_BID_ASK HISTORICAL_TICKS_LAST TICK_BY_TICK"
        ),
        ServerVersion.PROTOBUF_NEWS: (
            "NEWS_BULLETINS NEWS_ARTICLE NEWS_PROVIDERS HISTORICAL_NEWS HISTORICAL_NEWS_END WSH_META_DATA "
            "WSH_EVENT_DATA TICK_NEWS"
        ),
        ServerVersion.PROTOBUF_SCANNERS: "SCANNER_PARAMETERS SCANNER_DATA PNL PNL_SINGLE",
        ServerVersion.PROTOBUF_CALCULATIONS: (
            "RECEIVE_FA REPLACE_FA_END COMMISSION_AND_FEES_REPORT HISTORICAL_SCHEDULE REROUTE_MKT_DATA_REQ "
            "REROUTE_MKT_DEPTH_REQ"
        ),
        ServerVersion.PROTOBUF_SYMBOLS: (
            "SECURITY_DEFINITION_OPTION_PARAMETER SECURITY_DEFINITION_OPTION_PARAMETER_END SOFT_DOLLAR_TIERS "
            "FAMILY_CODES SYMBOL_SAMPLES SMART_COMPONENTS MARKET_RULE USER_INFO"
        ),
        ServerVersion.PROTOBUF_SESSION: (
            "NEXT_VALID_ID CURRENT_TIME CURRENT_TIME_IN_MILLIS VERIFY_MESSAGE_API VERIFY_COMPLETED "
            "DISPLAY_GROUP_LIST DISPLAY_GROUP_UPDATED MKT_DEPTH_EXCHANGES"
        ),
        ServerVersion.CONFIG: "CONFIG_RESPONSE",
        ServerVersion.UPDATE_CONFIG: "UPDATE_CONFIG_RESPONSE",
    },
)
"""The server version from which a gateway sends a message as protobuf; TICK_EFP and the like stay text."""

OUTGOING_PROTOBUF_SINCE = _versions(
    Outgoing,
    {
        ServerVersion.PROTOBUF_EXECUTIONS: "REQ_EXECUTIONS",
        ServerVersion.PROTOBUF_ORDERS: "PLACE_ORDER CANCEL_ORDER REQ_GLOBAL_CANCEL",
        ServerVersion.PROTOBUF_COMPLETED_ORDERS: (
            "REQ_OPEN_ORDERS REQ_AUTO_OPEN_ORDERS REQ_ALL_OPEN_ORDERS REQ_COMPLETED_ORDERS"
        ),
        ServerVersion.PROTOBUF_CONTRACTS: "REQ_CONTRACT_DATA",
        ServerVersion.PROTOBUF_MARKET_DATA: (
            "REQ_MKT_DATA CANCEL_MKT_DATA REQ_MKT_DEPTH CANCEL_MKT_DEPTH REQ_MARKET_DATA_TYPE"
        ),
        ServerVersion.PROTOBUF_ACCOUNTS: (
            "REQ_ACCT_DATA REQ_MANAGED_ACCTS REQ_POSITIONS REQ_ACCOUNT_SUMMARY CANCEL_ACCOUNT_SUMMARY "
            "CANCEL_POSITIONS REQ_POSITIONS_MULTI CANCEL_POSITIONS_MULTI REQ_ACCOUNT_UPDATES_MULTI "
            "CANCEL_ACCOUNT_UPDATES_MULTI"
        ),
        ServerVersion.PROTOBUF_HISTORICAL: (
            "REQ_HISTORICAL_DATA CANCEL_HISTORICAL_DATA REQ_REAL_TIME_BARS CANCEL_REAL_TIME_BARS "
            "REQ_HEAD_TIMESTAMP REQ_HISTOGRAM_DATA CANCEL_HISTOGRAM_DATA CANCEL_HEAD_TIMESTAMP "
            "REQ_HISTORICAL_TICKS REQ_TICK_BY_TICK_DATA CANCEL_TICK_BY_TICK_DATA"
        ),
        ServerVersion.PROTOBUF_NEWS: (
            "REQ_NEWS_BULLETINS CANCEL_NEWS_BULLETINS REQ_NEWS_ARTICLE REQ_NEWS_PROVIDERS REQ_HISTORICAL_NEWS "
            "REQ_WSH_META_DATA CANCEL_WSH_META_DATA REQ_WSH_EVENT_DATA CANCEL_WSH_EVENT_DATA"
        ),
        ServerVersion.PROTOBUF_SCANNERS: (
            "REQ_SCANNER_SUBSCRIPTION CANCEL_SCANNER_SUBSCRIPTION REQ_SCANNER_PARAMETERS REQ_PNL CANCEL_PNL "
            "REQ_PNL_SINGLE CANCEL_PNL_SINGLE"
        ),
        ServerVersion.PROTOBUF_CALCULATIONS: (
            "REQ_FA REPLACE_FA EXERCISE_OPTIONS REQ_CALC_IMPLIED_VOLAT REQ_CALC_OPTION_PRICE "
            "CANCEL_CALC_IMPLIED_VOLAT CANCEL_CALC_OPTION_PRICE"
        ),
        ServerVersion.PROTOBUF_SYMBOLS: (
            "REQ_SEC_DEF_OPT_PARAMS REQ_SOFT_DOLLAR_TIERS REQ_FAMILY_CODES REQ_MATCHING_SYMBOLS "
            "REQ_SMART_COMPONENTS REQ_MARKET_RULE REQ_USER_INFO"
        ),
        ServerVersion.PROTOBUF_SESSION: (
            "REQ_IDS SET_SERVER_LOGLEVEL REQ_CURRENT_TIME VERIFY_REQUEST VERIFY_MESSAGE QUERY_DISPLAY_GROUPS "
            "SUBSCRIBE_TO_GROUP_EVENTS UPDATE_DISPLAY_GROUP UNSUBSCRIBE_FROM_GROUP_EVENTS START_API "
            "REQ_MKT_DEPTH_EXCHANGES REQ_CURRENT_TIME_IN_MILLIS"
        ),
        ServerVersion.CANCEL_CONTRACT_DATA: "CANCEL_CONTRACT_DATA CANCEL_HISTORICAL_TICKS",
        ServerVersion.CONFIG: "REQ_CONFIG",
        ServerVersion.UPDATE_CONFIG: "UPDATE_CONFIG",
    },
)
"""The server version from which a client sends a request as protobuf."""
